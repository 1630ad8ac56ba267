#!/usr/bin/env bash
# Measures this machine and makes one table: artifacts/bench/bench.md, and bench.json for programs. A few minutes on two cores.
#
#   bench/run.sh [NAME...]      all, or only those named
#
#   steps       training steps of two model shapes in float32 and bfloat16: tokens/s, share of libtorch's own product rate, peak memory
#   first-step  seconds from submitting a job to its first training step, on a service of its own (embedded profile)
#   claims      claims per second and their latency with 10 000 queued jobs on Postgres
#   data        megabytes of rows checked, and tokenised, per second
#   store       megabytes per second to S3 and back
#   table       nothing; only makes the table of what was measured before
#
# The figures of each stand as lines of JSON in artifacts/bench/NAME.jsonl; the table holds the newest of all. Use a machine that does nothing
# else: the product rates before and after the steps tell whether it did.
#
#   BENCH_STEPS, BENCH_WARM_UP     steps that count, and those before them (10, 3)
#   BENCH_SHAPES                   "hidden layers heads mlp vocabulary" of the models, one a line
#   TRAINING_URL                   address of the service of first-step (http://127.0.0.1:5089)
#   TRAINING_TEST_POSTGRES, TRAINING_TEST_S3_*     servers for claims and store; else scripts/test-services.sh starts its own
set -euo pipefail
cd "$(dirname "$0")/.."

words="bench/run.sh${*:+ $*}"
output=artifacts/bench
mkdir -p "$output"
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1

build() { dotnet build "$1" -c Release -v quiet --nologo -p:RunAnalyzers=false -p:UseSharedCompilation=true "-clp:ErrorsOnly;NoSummary" >&2; }

worker() { dotnet artifacts/bin/Worker/release/TrainingService.Worker.dll "$@"; }

bench() { dotnet artifacts/bin/Bench/release/TrainingService.Bench.dll "$@"; }

# What a measurement says, on the screen and in its file; a failed one leaves the figures of the last time.
keep() { # name command...
  local name=$1; shift
  "$@" | tee "$output/$name.part"
  grep '^{' "$output/$name.part" > "$output/$name.jsonl"
  rm "$output/$name.part"
}

steps() {
  local hidden layers heads mlp vocabulary precision
  while read -r hidden layers heads mlp vocabulary; do
    for precision in float32 bfloat16; do
      worker measure steps --hidden "$hidden" --layers "$layers" --heads "$heads" --mlp "$mlp" --vocabulary "$vocabulary" \
        --precision $precision --steps "${BENCH_STEPS:-10}" --warm-up "${BENCH_WARM_UP:-3}" < /dev/null
    done
  done <<< "${BENCH_SHAPES:-$'288 6 6 768 32000\n512 8 8 1376 32000'}"
}

first_step() ( # in a shell of its own, whose end ends the service
  . scripts/service.sh
  url=${TRAINING_URL:-http://127.0.0.1:5089}
  folder=$(mktemp -d)
  start_service "$folder" "$url"
  dotnet run bench/submit-to-first-step.cs -- "$url"
  kill "$service"
  wait "$service" || true
  rm -rf "$folder"
)

# Starts the servers that are not named.
servers() {
  [ -z "${TRAINING_TEST_POSTGRES:-}" ] || return 0
  services=$(mktemp -d)
  chmod 755 "$services"   # Postgres runs as another user and must reach its folder
  trap 'scripts/test-services.sh stop "$services"' EXIT
  local variables
  variables=$(scripts/test-services.sh start "$services")
  eval "$variables"
}

[ $# -gt 0 ] || set -- steps first-step claims data store
for name in "$@"; do
  case $name in
    steps) build src/Worker ;;
    first-step) ;;
    claims | store) servers ;;
    data | table) ;;
    *) echo "error: no figure is called $name; see the head of $0" >&2; exit 2 ;;
  esac
done
build bench/Bench

for name in "$@"; do
  case $name in
    steps) keep steps steps ;;
    first-step) keep first-step first_step ;;
    claims | data | store) keep "$name" bench "$name" ;;
    table) ;;
  esac
done
bench table "$output" "$words"
