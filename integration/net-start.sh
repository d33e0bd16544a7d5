#!/bin/bash
# make net-start: netd is killed and started again beside N containers (400), as an engine's start does it; whether a rule changed goes to
# integration/results/net-start.md.
set -euo pipefail
cd "$(dirname "$0")/.."
containers=${1:-400}
results=integration/results/net-start.md
log=$(mktemp); trap 'rm -f "$log"' EXIT
outcome=passed
WHERRY_CONTAINERS=$containers cargo test -q -p wherry-netd --test it -- --exact --nocapture restart::a_start_changes_no_rule_that_is_right 2>&1 | tee "$log" || outcome="**failed**"
line=$(grep -aoE '^starts: .*' "$log" || echo "starts: containers=$containers")
count() { grep -oE "$1=[0-9]+" <<<"$line" | cut -d= -f2 || echo -; }
[ -s "$results" ] || cat >"$results" <<'HEAD'
# A start beside many containers

Written by `make net-start`: netd and its standby are killed and started again, with the settings that an engine sends when it starts, in a host
with so many containers in four networks, a third of them with a published port. "Changes" counts how often the rules of the host, and of every
container's own namespace, were touched by that, as the kernel counts it; the time is the slowest start's. netd is a debug build.

| date | commit | containers | rules of the host | starts | changes | slowest start, ms | outcome |
| --- | --- | --- | --- | --- | --- | --- | --- |
HEAD
echo "| $(date -u '+%F %R') | $(git rev-parse --short HEAD) | $(count containers) | $(count rules) | $(count starts) | $(count changes) | $(count slowest_ms) | $outcome |" >>"$results"
[ "$outcome" = passed ]
