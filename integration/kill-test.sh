#!/bin/bash
# `make kill-test N=20`: runs the test that kills the engine under load N times in a row, prints the counts, and
# appends them to integration/results/kill-test.md. ENGINE names the engine.
set -uo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-20} passed=0 failed=0
results=integration/results/kill-test.md log=target/kill-test.log
begin=$SECONDS
: >"$log"
cargo nextest run -p wherry-tests --no-run >>"$log" 2>&1 || { tail -20 "$log" >&2; exit 1; }
for round in $(seq "$rounds"); do
  if cargo nextest run -p wherry-tests -E 'test(=kill::the_engine_under_load)' >>"$log" 2>&1; then
    passed=$((passed + 1)); echo "round $round of $rounds: passed"
  else
    failed=$((failed + 1)); echo "round $round of $rounds: FAILED, see $log"
  fi
done
[ -e "$results" ] || printf '%s\n\n%s\n\n| date | commit | engine | rounds | passed | failed | seconds |\n| --- | --- | --- | --- | --- | --- | --- |\n' \
  "# The engine is killed under load" "Written by \`make kill-test\`: each round is the test \`kill::the_engine_under_load\` (an outage of 5 s)." >"$results"
printf '| %s | %s | %s | %s | %s | %s | %s |\n' "$(date -u +%F\ %R)" "$(git rev-parse --short HEAD)" \
  "$("${ENGINE:-target/release/wherryd}" --version 2>/dev/null | head -1)" "$rounds" "$passed" "$failed" "$((SECONDS - begin))" >>"$results"
echo
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
