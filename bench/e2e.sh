#!/usr/bin/env bash
# Real data: LoRA on a real pretrained model. stories260K learns to write E2E's restaurant sentences from meaning representations.
# Trains on valid.txt, holds out 1 000 rows of test.txt, and prints the held-out loss before and after 300 steps.
#
#   bench/e2e.sh [SHARED_DATA] [OUTPUT] [QUANTIZATION]
#
# SHARED_DATA holds models/stories260K and instruct/e2e; default ../shared/data. QUANTIZATION of the base: nf4 or int8; default none.
# OPTIMIZER and ADAPTER, where set, are those members of the spec, as JSON; STEPS is the number of steps.
set -euo pipefail
cd "$(dirname "$0")/.."

shared=$(cd "${1:-../shared/data}" && pwd)
output=${2:-$PWD/artifacts/e2e}
quantization=null
if [ -n "${3:-}" ]; then
  quantization="{ \"type\": \"$3\" }"
fi

lora='{ "type": "lora", "rank": 16, "alpha": 32, "target_modules": "all-linear" }'
adapter=${ADAPTER:-$lora}
adamw='{ "type": "adamw", "learning_rate": 5e-3 }'
optimizer=${OPTIMIZER:-$adamw}
rm -rf "$output"
mkdir -p "$output"

# "record||sentence" → {"prompt": …, "completion": …}
rows() { awk -F'[|][|]' '{ gsub(/\\/, "\\\\"); gsub(/"/, "\\\""); printf "{\"prompt\": \"%s\\n\", \"completion\": \"%s\"}\n", $1, $2 }' "$1"; }
rows "$shared/instruct/e2e/valid.txt" > "$output/train.jsonl"
rows "$shared/instruct/e2e/test.txt" | awk 'NR % 4 == 1 && kept++ < 1000' > "$output/heldout.jsonl"

cat > "$output/spec.json" <<JSON
{
  "model": "$shared/models/stories260K",
  "data": { "train": "$output/train.jsonl", "validation": "$output/heldout.jsonl", "max_length": 256, "packing": true },
  "objective": { "type": "sft" },
  "adapter": $adapter,
  "optimizer": $optimizer,
  "schedule": { "max_steps": ${STEPS:-300}, "batch_size": 16, "lr_scheduler": "cosine", "warmup_ratio": 0.05 },
  "quantization": $quantization,
  "evaluation": { "every_steps": 50 },
  "seed": 42
}
JSON
dotnet build src/Worker -c Release -v quiet --nologo "-clp:ErrorsOnly;NoSummary"
dotnet artifacts/bin/Worker/release/TrainingService.Worker.dll train --spec "$output/spec.json" --work "$output/run" > "$output/reports.jsonl"
grep '"eval/loss"' "$output/reports.jsonl" | grep '"type":"metric"' | sed -n '1p;$p'
echo "report, curve and spectra: $output/run"
