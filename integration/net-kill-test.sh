#!/bin/bash
# make net-kill-test: netd and the engine are killed N times (50) under traffic and churn, in one host; the counts go to
# integration/results/net-kill-test.md. ENGINE names the engine.
set -euo pipefail
cd "$(dirname "$0")/.."
kills=${1:-50}
results=integration/results/net-kill-test.md
log=$(mktemp); trap 'rm -f "$log"' EXIT
outcome=passed
WHERRY_NET_KILLS=$kills cargo test -q -p wherry-tests --test e2e -- --exact --nocapture netkill::network_and_engine_in_turns 2>&1 | tee "$log" || outcome="**failed**"
line=$(grep -aoE 'net-kill: .*' "$log" || echo "net-kill: rounds=$kills")
count() { grep -oE "$1=[0-9]+" <<<"$line" | cut -d= -f2 || echo -; }
[ -s "$results" ] || cat >"$results" <<'HEAD'
# netd and the engine are killed under traffic and churn

Written by `make net-kill-test`. Rounds in turn: netd; the engine; both; both and netd's standby. Three connections stay open all the time (container to
container, the host to a published port on 127.0.0.1 and on its address) and carry traffic after every kill; a container asks for a name every 2 ms ("repeated" are lookups that
had to be asked a second time, "dark" those without an answer while neither netd nor its standby lived, "failed" all
others that were lost twice or wrong); two clients start and remove containers. At the end addresses,
links, rules, namespaces and processes are compared with what must be there.

| date | commit | engine | kills | lookups | repeated | dark | failed | containers started | seconds | outcome |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
HEAD
echo "| $(date -u '+%F %R') | $(git rev-parse --short HEAD) | $("${ENGINE:-target/release/wherryd}" --version 2>/dev/null | head -1) | $(count rounds) | $(count answers) | $(count repeated) | $(count dark) | $(count failed) | $(count started) | $(count seconds) | $outcome |" >>"$results"
[ "$outcome" = passed ]
