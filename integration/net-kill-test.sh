#!/bin/bash
# make net-kill-test: netd and the engine are killed N times (50) under traffic and churn, in one host; the counts go to
# integration/results/net-kill-test.md. ENGINE names the engine.
source "$(dirname "$0")/counted-test.sh"
export WHERRY_NET_KILLS=${1:-50}
counted_test net-kill wherry-tests e2e netkill::network_and_engine_in_turns
keep net-kill-test.md "$("${ENGINE:-target/release/wherryd}" --version 2>/dev/null | head -1)" "$(count rounds)" "$(count answers)" \
  "$(count repeated)" "$(count dark)" "$(count failed)" "$(count started)" "$(count seconds)" <<'HEAD'
# netd and the engine are killed under traffic and churn

Written by `make net-kill-test`. Rounds in turn: netd; the engine; both; both and netd's standby. Three connections stay open all the time (container to
container, the host to a published port on 127.0.0.1 and on its address) and carry traffic after every kill; a container asks for a name every 2 ms ("repeated" are lookups that
had to be asked a second time, "dark" those without an answer while neither netd nor its standby lived, "failed" all
others that were lost twice or wrong); two clients start and remove containers. At the end addresses,
links, rules, namespaces and processes are compared with what must be there.

| date | commit | engine | kills | lookups | repeated | dark | failed | containers started | seconds | outcome |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
HEAD
