#!/usr/bin/env bash
# Trains every adapter on one task, the sample model's, and writes the table of docs/methods/README.md: what trains, the held-out loss before and
# after, time and memory. About eight minutes on two cores.
#
#   bench/methods.sh [NAME...]      only these methods, and a table of them alone
set -euo pipefail
cd "$(dirname "$0")/.."

export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
for project in src/Worker bench/Bench; do
  dotnet build $project -c Release -v quiet --nologo -p:RunAnalyzers=false -p:UseSharedCompilation=true "-clp:ErrorsOnly;NoSummary" >&2
done
dotnet artifacts/bin/Bench/release/TrainingService.Bench.dll methods \
  artifacts/bin/Worker/release/TrainingService.Worker.dll docs/methods/README.md "$@"
