#!/usr/bin/env bash
# Starts the servers that the tests of the production profile need, on loopback, with their data in one folder:
# PostgreSQL, and OpenStack Swift with its s3api middleware as the S3 server.
#
#   scripts/test-services.sh install           fetches the Debian packages through apt (as root or with sudo)
#   eval "$(scripts/test-services.sh start FOLDER)"     starts both and prints the variables that the tests read
#   scripts/test-services.sh stop FOLDER       stops both and removes the folder
set -euo pipefail

PACKAGES="postgresql swift-proxy swift-account swift-container swift-object python3-swift memcached curl"

say() { printf '%s\n' "$*" >&2; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

wait_for() { # what seconds command...
  local what=$1 seconds=$2 i; shift 2
  for ((i = 0; i < seconds * 5; i++)); do "$@" >/dev/null 2>&1 && return 0; sleep 0.2; done
  say "error: $what did not answer within $seconds s"
  return 1
}

install_packages() {
  local missing=() package
  for package in $PACKAGES "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return 0
  say "installing ${missing[*]}"
  as_root apt-get update -qq >&2
  # Installing must not start system-wide servers: ours run from a folder of their own.
  printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
  as_root chmod +x /usr/sbin/policy-rc.d
  local status=0
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 || status=$?
  as_root rm -f /usr/sbin/policy-rc.d
  return $status
}

# Postgres refuses to run as root.
as_postgres() { if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else (cd / && "$@"); fi; }

postgres_bin() { ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1; }

start_postgres() {
  local port bin
  port=$(free_port)
  bin=$(postgres_bin)
  mkdir -p "$folder/postgres"
  [ "$(id -u)" = 0 ] && chown postgres "$folder/postgres"
  as_postgres "$bin/initdb" -D "$folder/postgres/data" -U postgres -A trust -E UTF8 --no-locale -N >/dev/null
  as_postgres "$bin/pg_ctl" -D "$folder/postgres/data" -l "$folder/postgres/log" -w -t 60 \
    -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c max_connections=200" start >/dev/null
  echo "export TRAINING_TEST_POSTGRES='Host=127.0.0.1;Port=$port;Username=postgres;Database=postgres'"
}

start_swift() {
  local proxy account container object cache kind server user conf=$folder/swift/conf
  proxy=$(free_port); account=$(free_port); container=$(free_port); object=$(free_port); cache=$(free_port)
  user=$(id -un)
  mkdir -p "$conf" "$folder/swift/devices/d1" "$folder/swift/cache" "$folder/swift/run"
  cat > "$conf/swift.conf" <<CONF
[swift-hash]
swift_hash_path_prefix = training
swift_hash_path_suffix = service
[storage-policy:0]
name = default
default = yes
CONF

  cat > "$conf/proxy.conf" <<CONF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $proxy
workers = 1
user = $user
swift_dir = $conf
log_address =
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats bulk s3api tempauth copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
node_timeout = 60
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:$cache
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
CONF

  for kind in account container object; do
    cat > "$conf/$kind.conf" <<CONF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = ${!kind}
workers = 1
user = $user
swift_dir = $conf
devices = $folder/swift/devices
mount_check = false
disable_fallocate = true
log_address =
[pipeline:main]
pipeline = $kind-server
[app:$kind-server]
use = egg:swift#$kind
CONF
    ( cd "$conf"
      swift-ring-builder "$kind.builder" create 4 1 1
      swift-ring-builder "$kind.builder" add "r1z1-127.0.0.1:${!kind}/d1" 1
      swift-ring-builder "$kind.builder" rebalance ) >/dev/null
  done

  setsid memcached -u "$user" -l 127.0.0.1 -p "$cache" -U 0 -m 32 >/dev/null 2>&1 < /dev/null &
  echo $! > "$folder/swift/run/memcached.pid"
  for server in account container object proxy; do
    SWIFT_DIR=$conf setsid "swift-$server-server" "$conf/$server.conf" > "$folder/swift/run/$server.log" 2>&1 < /dev/null &
    echo $! > "$folder/swift/run/$server.pid"
  done

  wait_for "the S3 server" 60 curl -fsS "http://127.0.0.1:$proxy/healthcheck"
  echo "export TRAINING_TEST_S3_ENDPOINT='127.0.0.1:$proxy'"
  echo "export TRAINING_TEST_S3_ACCESS_KEY='test:tester'"
  echo "export TRAINING_TEST_S3_SECRET_KEY='testing'"
}

stop_all() {
  local pid
  if [ -d "$folder/postgres/data" ]; then
    as_postgres "$(postgres_bin)/pg_ctl" -D "$folder/postgres/data" -m immediate stop >/dev/null 2>&1 || say "postgres was not running"
  fi
  for pid in "$folder"/swift/run/*.pid; do
    [ -e "$pid" ] && { kill -- "-$(cat "$pid")" 2>/dev/null || kill "$(cat "$pid")" 2>/dev/null || true; }
  done
  rm -rf "$folder"
}

usage() { say "usage: $0 install [PACKAGE...] | start FOLDER | stop FOLDER"; exit 2; }

action=${1:-}
case $action in
  install) shift; install_packages "$@"; exit ;;
  start | stop) [ $# = 2 ] || usage ;;
  *) usage ;;
esac

mkdir -p "$2"
folder=$(cd "$2" && pwd)
chmod 755 "$folder"   # Postgres runs as another user and must reach its folder
if [ "$action" = start ]; then start_postgres; start_swift; else stop_all; fi
