#!/usr/bin/env bash
# Measures the service on this machine and prints one line a figure.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/service.sh

folder=$(mktemp -d)
url=${TRAINING_URL:-http://127.0.0.1:5089}
start_service "$folder" "$url"
dotnet run bench/submit-to-first-step.cs -- "$url"
rm -rf "$folder"
