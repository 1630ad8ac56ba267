#!/usr/bin/env bash
# Reward models on real data: stories260K learns which of two answers people called less harmful (hh-rlhf, harmless-base).
# Two rows of three train, the third is held out; prints the held-out accuracy and by how many standard errors it beats chance.
#
#   bench/reward.sh [SHARED_DATA] [OUTPUT]
#
# SHARED_DATA holds models/stories260K and preference/hh-rlhf; default ../shared/data.
# OBJECTIVE, OPTIMIZER and ADAPTER, where set, are those members of the spec, as JSON; STEPS is the number of steps.
set -euo pipefail
cd "$(dirname "$0")/.."

shared=$(cd "${1:-../shared/data}" && pwd)
output=${2:-$PWD/artifacts/reward}
full='{ "type": "full" }'
adamw='{ "type": "adamw", "learning_rate": 5e-4, "weight_decay": 0.1 }'
reward='{ "type": "reward" }'
rm -rf "$output"
mkdir -p "$output"

gzip -dc "$shared/preference/hh-rlhf/harmless-base-test.jsonl.gz" | awk -v folder="$output" '{ print > (folder (NR % 3 == 1 ? "/heldout.jsonl" : "/train.jsonl")) }'

cat > "$output/spec.json" <<JSON
{
  "model": "$shared/models/stories260K",
  "data": { "train": "$output/train.jsonl", "validation": "$output/heldout.jsonl", "max_length": 512 },
  "objective": ${OBJECTIVE:-$reward},
  "adapter": ${ADAPTER:-$full},
  "optimizer": ${OPTIMIZER:-$adamw},
  "schedule": { "max_steps": ${STEPS:-100}, "batch_size": 16, "lr_scheduler": "cosine", "warmup_ratio": 0.1 },
  "evaluation": { "every_steps": ${STEPS:-100} },
  "spectra": { "enabled": false },
  "seed": 42
}
JSON
dotnet build src/Worker -c Release -v quiet --nologo -p:RunAnalyzers=false "-clp:ErrorsOnly;NoSummary"
dotnet artifacts/bin/Worker/release/TrainingService.Worker.dll train --spec "$output/spec.json" --work "$output/run" > "$output/reports.jsonl"
grep '"eval/loss"' "$output/reports.jsonl" | grep '"type":"metric"'

pairs=$(grep -A 14 '"validation": {' "$output/run/data/report.json" | grep -m1 '"examples"' | tr -dc 0-9)
accuracy=$(grep '"type":"done"' "$output/reports.jsonl" | sed 's/.*"eval\/accuracy":\([0-9.]*\).*/\1/')
awk -v a="$accuracy" -v n="$pairs" 'BEGIN { printf "held-out accuracy %.4f on %d pairs: %.1f standard errors above chance\n", a, n, (a - 0.5) / sqrt(0.25 / n) }'
