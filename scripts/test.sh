#!/usr/bin/env bash
# Installs what the tests need and runs all of them. Needs the .NET 10 SDK, and root or sudo for the Debian packages.
#
#   scripts/test.sh                      everything
#   scripts/test.sh Training.Tests       one project
#   scripts/test.sh Api.Tests -class '*JobTests'     further words go to the test runner
#
# Ends with the line "N passed, N failed". With CI=true a missing server or data folder fails; elsewhere it skips and says so.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
configuration=Release
output=${configuration,,}

command -v dotnet >/dev/null || { echo "error: the .NET 10 SDK is missing: https://dotnet.microsoft.com/download/dotnet/10.0" >&2; exit 1; }

projects=()
for project in tests/*.Tests; do projects+=("$(basename "$project")"); done
if [ $# -gt 0 ]; then projects=("$1"); shift; fi

packages=(chromium)
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)
services= beside=
cleanup() {
  if [ -n "$beside" ]; then kill "$beside" 2>/dev/null || true; fi
  if [ -n "$services" ]; then scripts/test-services.sh stop "$services"; fi
}
trap cleanup EXIT
if command -v apt-get >/dev/null; then
  say "installing what the tests need"
  scripts/test-services.sh install "${packages[@]}"
fi
if [ -z "${TRAINING_TEST_POSTGRES:-}" ] && [ "${projects[*]}" != Training.Tests ] && [ "${projects[*]}" != Domain.Tests ]; then
  say "starting PostgreSQL and an S3 server"
  services=$(mktemp -d)
  chmod 755 "$services"   # Postgres runs as another user and must reach its folder
  variables=$(scripts/test-services.sh start "$services")
  eval "$variables"
fi

say "building"
dotnet build TrainingService.sln -c $configuration -v quiet --nologo -p:UseSharedCompilation=true

if [[ " ${projects[*]} " == *" EndToEnd.Tests "* ]]; then
  (cd tests/EndToEnd.Tests/openai-node && npm ci --no-audit --no-fund --loglevel=error)
fi

# Hundreds of short processes: what the runtime learns of their hot paths is paid for and never used (8 % of a short run's time).
export DOTNET_TieredPGO=0

passed=0 failed=0 skipped=0 status=0
logs=$(mktemp -d)
count() {   # adds up what a project's log says
  local summary wrong
  summary=$(grep -E 'Total: [0-9]+, Errors: [0-9]+, Failed: [0-9]+, Skipped: [0-9]+' "$logs/$1" | tail -n 1 || true)
  if [[ $summary =~ Total:\ ([0-9]+),\ Errors:\ ([0-9]+),\ Failed:\ ([0-9]+),\ Skipped:\ ([0-9]+) ]]; then
    wrong=$((BASH_REMATCH[2] + BASH_REMATCH[3]))
    passed=$((passed + BASH_REMATCH[1] - BASH_REMATCH[3] - BASH_REMATCH[4]))
    failed=$((failed + wrong))
    skipped=$((skipped + BASH_REMATCH[4]))
  else
    echo "error: $1 ended without a summary" >&2
    failed=$((failed + 1))
  fi
}

# Training.Tests compute and never wait; EndToEnd.Tests mostly wait. The first take, at a low priority, what the others leave.
if [ ${#projects[@]} -gt 1 ]; then
  nice -n 10 "artifacts/bin/Training.Tests/$output/TrainingService.Training.Tests" -noColor -noLogo > "$logs/Training.Tests" 2>&1 &
  beside=$!
fi

for project in "${projects[@]}"; do
  if [ -n "$beside" ] && [ "$project" = Training.Tests ]; then continue; fi
  say "$project"
  "artifacts/bin/$project/$output/TrainingService.$project" -noColor -noLogo "$@" 2>&1 | tee "$logs/$project" || status=1
  count "$project"
done
if [ -n "$beside" ]; then
  say "Training.Tests"
  wait "$beside" || status=1
  cat "$logs/Training.Tests"
  count Training.Tests
  beside=
fi
rm -rf "$logs"

[ $failed = 0 ] && [ $passed -gt 0 ] || status=1
echo
if [ $skipped = 0 ]; then echo "$passed passed, $failed failed"; else echo "$passed passed, $failed failed, $skipped skipped"; fi
exit $status
