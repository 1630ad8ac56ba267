#!/usr/bin/env bash
# Breaks the running service in ways that take longer than CI has time for, and prints a line per round.
#
#   scripts/chaos.sh kills [N]     kill -9 of training processes, workers, APIs and embedded services, N times (200)
#   scripts/chaos.sh outages [S]   Postgres, S3 and both away for S seconds (120), during training and during the final upload
#   scripts/chaos.sh stops         cancel, pause and shutdown in every phase, held to five seconds
#   scripts/chaos.sh workers       fifty jobs on two workers, and workers that are stopped past their lease
#   scripts/chaos.sh all           all of them, one after the other
#
# TRAINING_CHAOS_SEED=number repeats the choices of an earlier run of kills. Needs what scripts/test.sh needs.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { echo "usage: $0 kills [N] | outages [SECONDS] | stops | workers | all" >&2; exit 2; }
export TRAINING_CHAOS_FULL=1

run() { # class
  scripts/test.sh EndToEnd.Tests -class "*.Chaos.$1" -showLiveOutput -parallelMode none
}

kills() { TRAINING_CHAOS_KILLS=${1:-200} run KillTests; }
outages() { TRAINING_CHAOS_OUTAGE_SECONDS=${1:-120} run OutageTests; }
stops() { run StopTests; }
workers() { run TwoWorkersTests; }

[ $# -ge 1 ] && [ $# -le 2 ] || usage
case $1 in
  kills | outages) "$@" ;;
  stops | workers) [ $# = 1 ] || usage; "$1" ;;
  all) [ $# = 1 ] || usage; kills && outages && stops && workers ;;
  *) usage ;;
esac
