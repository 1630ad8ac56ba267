#!/usr/bin/env bash
# Builds the service, starts it on the embedded profile, and runs the first job: a LoRA adapter that teaches the sample model a task.
#
#   scripts/quickstart.sh            runs the job and stops the service
#   scripts/quickstart.sh --keep     leaves the service up until Ctrl-C
#
# Needs the .NET 10 SDK and nothing else. Everything it writes is below artifacts/quickstart.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/service.sh

keep=
case ${1:-} in
  --keep) keep=1 ;;
  '') ;;
  *) echo "usage: $0 [--keep]" >&2; exit 2 ;;
esac

home=$PWD/artifacts/quickstart
url=${TRAINING_URL:-http://127.0.0.1:5088}
start_service "$home" "$url"
dotnet run samples/quickstart.cs -- "$url" "$PWD/artifacts/bin/Worker/release/TrainingService.Worker.dll" "$home/results"

if [ -n "$keep" ]; then
  echo "The service stays up; Ctrl-C ends it."
  wait "$service"
fi
