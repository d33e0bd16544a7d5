#!/bin/bash
# `make demo`: starts wherryd in namespaces of its own (nothing of this machine changes), loads an image, runs containers with
# the stock docker client, asks a published port, kills the engine under them, and removes everything.
#   demo.sh [ENGINE]
set -euo pipefail
cd "$(dirname "$0")/.."
engine=$(readlink -f "${1:-target/release/wherryd}")
[ "$(id -u)" = 0 ] || { echo "make demo: run it as root: it makes namespaces, mounts and cgroups" >&2; exit 1; }
[ -x "$engine" ] || { echo "make demo: no engine at $engine: run \`make build\`" >&2; exit 1; }
work=$(mktemp -d /var/tmp/wherry-demo.XXXXXX)
bold=$(tput bold 2>/dev/null || true) plain=$(tput sgr0 2>/dev/null || true)

coproc HOST { exec tests/host.sh "$work" 2>>"$work/log"; }
host_pid=$HOST_PID host_in=${HOST[1]} host_out=${HOST[0]}
cleanup() {
  local status=$?
  exec {host_in}>&-     # the end of its input ends the host and all that is in it
  wait "$host_pid" 2>/dev/null || true
  while read -r folder; do find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null; done <"$work/cgroups" || true
  [ $status = 0 ] || { echo "--- the demo failed; the engine's log ends:" >&2; tail -20 "$work/log" >&2; }
  rm -rf "$work"
}
trap cleanup EXIT
# Evaluates a line in process 1 of the host; its output comes before a byte 1 and the exit status.
on_host() {
  local text status
  printf '%s\n' "$*" >&"$host_in"
  answer
}
answer() {
  IFS= read -r -d $'\001' -u "$host_out" text && read -r -u "$host_out" status
  printf '%s' "$text"
  return "$status"
}
answer # it is ready

export DOCKER_HOST=unix://$work/socket DOCKER_CONFIG=$work DOCKER_CLI_HINTS=false
start_engine() {
  on_host "setsid $engine -H $DOCKER_HOST --data-root $work/data --exec-root $work/exec --pidfile $work/pid </dev/null >>$work/log 2>&1 &"
  for _ in $(seq 200); do docker version >/dev/null 2>&1 && return; sleep .05; done
  echo "make demo: the engine does not answer" >&2; exit 1
}
show() { printf '\n%s$ %s%s\n' "$bold" "$*" "$plain"; "$@"; }
inside=$(cat "/proc/$host_pid/task/$host_pid/children"); inside=${inside%% *}
curl() { nsenter -t "$inside" -n curl -sS --retry 5 --retry-connrefused --retry-delay 1 -m 10 "$@"; }

start_engine
tests/busybox-image.sh "$work/busybox.tar"
show docker version --format 'client {{.Client.Version}}, engine {{.Server.Version}}, API {{.Server.APIVersion}}'
show docker load -i "$work/busybox.tar"
show docker run --rm busybox echo "Hello from a container."
show docker run -d --name web -p 8080:80 busybox sh -c 'mkdir /www; echo "Hello from a published port." >/www/index.html; exec httpd -f -p 80 -h /www'
show docker ps
show curl http://127.0.0.1:8080/
printf '\n%s# The engine is killed; the container does not notice.%s\n' "$bold" "$plain"
on_host "kill -9 $(cat "$work/pid")"
show curl http://127.0.0.1:8080/
start_engine
show docker exec web echo "A new engine has taken over."
show docker rm -f web
echo
echo "The demo has passed; nothing of it is left."
