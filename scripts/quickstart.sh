#!/usr/bin/env bash
# Builds the service, starts it on the embedded profile, and runs the first job: a LoRA adapter that teaches the sample model a task.
#
#   scripts/quickstart.sh            runs the job and stops the service
#   scripts/quickstart.sh --keep     leaves the service up until Ctrl-C
#
# Needs the .NET 10 SDK and nothing else. Everything it writes is below artifacts/quickstart.
set -euo pipefail
cd "$(dirname "$0")/.."

keep=
case ${1:-} in
  --keep) keep=1 ;;
  '') ;;
  *) echo "usage: $0 [--keep]" >&2; exit 2 ;;
esac
command -v dotnet >/dev/null || { echo "error: the .NET 10 SDK is missing: https://dotnet.microsoft.com/download/dotnet/10.0" >&2; exit 1; }
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1

home=$PWD/artifacts/quickstart
url=${TRAINING_URL:-http://127.0.0.1:5088}
worker=$PWD/artifacts/bin/Worker/release/TrainingService.Worker.dll
mkdir -p "$home"

echo "Building …"
dotnet build src/Api -c Release -v quiet --nologo -clp:ErrorsOnly

echo "Starting the service at $url …"
DataFolder=$home/data ASPNETCORE_URLS=$url \
  dotnet artifacts/bin/Api/release/TrainingService.Api.dll > "$home/service.log" 2>&1 &
service=$!
trap 'kill $service 2>/dev/null || true; wait $service 2>/dev/null || true' EXIT

ready() { (exec 3<>"/dev/tcp/127.0.0.1/${url##*:}") 2>/dev/null; }
for _ in $(seq 150); do
  kill -0 $service 2>/dev/null || { echo "error: the service did not start:" >&2; tail -n 20 "$home/service.log" >&2; exit 1; }
  ready && break
  sleep 0.2
done
ready || { echo "error: the service did not answer within 30 s; its log is $home/service.log" >&2; exit 1; }

dotnet run samples/quickstart.cs -- "$url" "$worker" "$home/results"

if [ -n "$keep" ]; then
  echo "The service stays up; Ctrl-C ends it."
  wait $service
fi
