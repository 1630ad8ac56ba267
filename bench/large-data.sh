#!/usr/bin/env bash
# A large data set within little memory: writes a JSONL file, validates it, and trains on it for ten steps, once from the rows and once from
# the token sequences that the first run kept. The growth is over the peak of the same run on a file of 1 MB.
#
#   bench/large-data.sh [MEGABYTES] [FOLDER]       default: 1000, artifacts/large-data
set -euo pipefail
cd "$(dirname "$0")/.."

megabytes=${1:-1000}
folder=${2:-$PWD/artifacts/large-data}
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
rm -rf "$folder"
mkdir -p "$folder/small" "$folder/large"
dotnet build src/Worker -c Release -v quiet --nologo "-clp:ErrorsOnly;NoSummary"
dotnet build bench/large-data.cs -c Release -v quiet --nologo "-clp:ErrorsOnly;NoSummary"
worker=artifacts/bin/Worker/release/TrainingService.Worker.dll
bench() { dotnet run -c Release --no-build bench/large-data.cs -- "$@"; }

bench generate "$folder/small.jsonl" 1
bench generate "$folder/large.jsonl" "$megabytes"
bench validate "$folder/large.jsonl"
echo "1 MB:"
bench train "$worker" "$folder/small" "$folder/small.jsonl" | tee "$folder/small.txt"
echo "$megabytes MB:"
bench train "$worker" "$folder/large" "$folder/large.jsonl" | tee "$folder/large.txt"
echo "$megabytes MB again, from the kept token sequences ($(du -m "$folder/large/cache" | tail -1 | cut -f1) MB):"
bench train "$worker" "$folder/large" "$folder/large.jsonl" | tee "$folder/again.txt"
peak() { sed -n 's/^peak_mb //p' "$1"; }
echo "memory grew by $(($(peak "$folder/large.txt") - $(peak "$folder/small.txt"))) MB, and by $(($(peak "$folder/again.txt") - $(peak "$folder/small.txt"))) MB from the kept sequences"
rm -rf "$folder/large" "$folder/large.jsonl"
