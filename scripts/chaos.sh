#!/usr/bin/env bash
# Breaks the running service in ways that take longer than CI has time for, and prints a line per round.
#
#   scripts/chaos.sh kills [N]     kill -9 of training processes, workers, APIs and embedded services, N times (200)
#
# TRAINING_CHAOS_SEED=number repeats the choices of an earlier run. Needs what scripts/test.sh needs.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { echo "usage: $0 kills [N]" >&2; exit 2; }

run() { # class
  scripts/test.sh EndToEnd.Tests -class "*.Chaos.$1" -showLiveOutput -parallelMode none
}

kills() { TRAINING_CHAOS_KILLS=${1:-200} run KillTests; }

[ $# -ge 1 ] && [ $# -le 2 ] || usage
case $1 in
  kills) "$@" ;;
  *) usage ;;
esac
