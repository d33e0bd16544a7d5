#!/bin/bash
# make net-start: netd is killed and started again beside N containers (400), as an engine's start does it; whether a rule changed goes to
# integration/results/net-start.md.
source "$(dirname "$0")/counted-test.sh"
export WHERRY_CONTAINERS=${1:-400}
counted_test starts wherry-netd it restart::a_start_changes_no_rule_that_is_right
keep net-start.md "$(count containers)" "$(count rules)" "$(count starts)" "$(count changes)" "$(count slowest_ms)" <<'HEAD'
# A start beside many containers

Written by `make net-start`: netd and its standby are killed and started again, with the settings that an engine sends when it starts, in a host
with so many containers in four networks, a third of them with a published port. "Changes" counts how often the rules of the host, and of every
container's own namespace, were touched by that, as the kernel counts it; the time is the slowest start's. netd is a debug build.

| date | commit | containers | rules of the host | starts | changes | slowest start, ms | outcome |
| --- | --- | --- | --- | --- | --- | --- | --- |
HEAD
