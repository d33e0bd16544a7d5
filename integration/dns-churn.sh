#!/bin/bash
# make dns-churn: N lookups (1,000,000) while containers join and leave; the count goes to integration/results/dns-churn.md.
set -euo pipefail
cd "$(dirname "$0")/.."
lookups=${1:-1000000}
results=integration/results/dns-churn.md
log=$(mktemp); trap 'rm -f "$log"' EXIT
outcome=passed
WHERRY_CHURN_LOOKUPS=$lookups cargo test -q -p wherry-netd --test it -- --exact --nocapture churn::no_answer_is_wrong_or_lost 2>&1 | tee "$log" || outcome="**failed**"
line=$(grep -aoE '^churn: .*' "$log" || echo "churn: lookups=$lookups")
count() { grep -oE "$1=[0-9]+" <<<"$line" | cut -d= -f2 || echo -; }
[ -s "$results" ] || cat >"$results" <<'HEAD'
# Lookups while containers come and go

Written by `make dns-churn`: four clients in containers ask 127.0.0.11 for names that stay, for names of containers that are made and removed
meanwhile (also from the host's resolver, which denies them), and for an alias with four addresses. Every answer is checked against what was true while it was
asked for; "certain" are the answers about a changing name whose state did not change in between. netd is a debug build.

| date | commit | lookups | wrong | lost | certain | joined and left | seconds | outcome |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
HEAD
echo "| $(date -u '+%F %R') | $(git rev-parse --short HEAD) | $(count lookups) | $(count wrong) | $(count lost) | $(count certain) | $(count comings) | $(count seconds) | $outcome |" >>"$results"
[ "$outcome" = passed ]
