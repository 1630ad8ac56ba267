#!/usr/bin/env bash
# Hours of mixed small jobs with random kills on the production profile: handles, threads, memory and files must stay level.
#
#   bench/soak.sh [MINUTES] [OUTPUT]       default: 120 minutes, artifacts/soak
#
# Needs Postgres and an S3 server: those named by TRAINING_TEST_POSTGRES and TRAINING_TEST_S3_*, or else it starts its own, as the tests do.
# OUTPUT gets soak.csv, soak.svg and the logs.
set -euo pipefail
cd "$(dirname "$0")/.."

output=${2:-$PWD/artifacts/soak}
mkdir -p "$output"
output=$(cd "$output" && pwd)
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
if [ -z "${TRAINING_TEST_POSTGRES:-}" ]; then
  services=$(mktemp -d)
  chmod 755 "$services"   # Postgres runs as another user and must reach its folder
  trap 'scripts/test-services.sh stop "$services"' EXIT
  variables=$(scripts/test-services.sh start "$services")
  eval "$variables"
fi

dotnet build src/Api -c Release -v quiet --nologo "-clp:ErrorsOnly;NoSummary"
dotnet build src/Worker -c Release -v quiet --nologo "-clp:ErrorsOnly;NoSummary"
name=soak$(date +%s)
export Profile=production ConnectionStrings__Postgres="${TRAINING_TEST_POSTGRES/Database=postgres/Database=$name}"
export S3__Endpoint=$TRAINING_TEST_S3_ENDPOINT S3__AccessKey=$TRAINING_TEST_S3_ACCESS_KEY S3__SecretKey=$TRAINING_TEST_S3_SECRET_KEY
export S3__Bucket=$name S3__UseTls=false DataFolder=$output/data
export Worker__LeaseSeconds=10 Reconciler__BackOffSeconds=1 Reconciler__MaxRecoveries=1000 Worker__MaxAttempts=100 Worker__RetrySeconds=1
dotnet artifacts/bin/Api/release/TrainingService.Api.dll migrate
dotnet run bench/soak.cs -- "${1:-120}" "$output"
