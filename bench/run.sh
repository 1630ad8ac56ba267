#!/usr/bin/env bash
# Measures this machine and prints one line a figure.
#
#   bench/run.sh [NAME...]      all, or only those named: steps, first-step
#
#   steps       training steps of two model shapes in float32 and bfloat16: tokens/s, share of libtorch's own product rate, peak memory
#   first-step  seconds from submitting a job to its first training step, on a service of its own
#
# Lines of JSON go to artifacts/bench/NAME.jsonl. BENCH_STEPS and BENCH_WARM_UP are the counted and the uncounted steps (10, 3).
set -euo pipefail
cd "$(dirname "$0")/.."

output=artifacts/bench
mkdir -p "$output"
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1

build() { dotnet build "$1" -c Release -v quiet --nologo -p:RunAnalyzers=false "-clp:ErrorsOnly;NoSummary" >&2; }

steps() {
  build src/Worker
  : > "$output/steps.jsonl"
  local shape precision
  for shape in "288 6 6 768 32000" "512 8 8 1376 32000"; do
    set -- $shape
    for precision in float32 bfloat16; do
      dotnet artifacts/bin/Worker/release/TrainingService.Worker.dll measure steps --hidden "$1" --layers "$2" --heads "$3" --mlp "$4" \
        --vocabulary "$5" --precision $precision --steps "${BENCH_STEPS:-10}" --warm-up "${BENCH_WARM_UP:-3}" | tee -a "$output/steps.jsonl"
    done
  done
}

first_step() {
  . scripts/service.sh
  local folder url=${TRAINING_URL:-http://127.0.0.1:5089}
  folder=$(mktemp -d)
  start_service "$folder" "$url"
  dotnet run bench/submit-to-first-step.cs -- "$url"
  rm -rf "$folder"
}

[ $# -gt 0 ] || set -- steps first-step
for name in "$@"; do
  case $name in
    steps) steps ;;
    first-step) first_step ;;
    *) echo "error: no figure is called $name; see the head of $0" >&2; exit 2 ;;
  esac
done
