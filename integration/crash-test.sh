#!/bin/bash
# `make crash-test KILLS=100 CUTS=30`: the tests of tests/tests/e2e/crash.rs with many rounds; prints the counts and appends
# them to integration/results/crash-test.md. ENGINE names the engine.
set -uo pipefail
cd "$(dirname "$0")/.."
export CRASH_KILLS=${1:-100} CRASH_CUTS=${2:-30}
results=integration/results/crash-test.md log=target/crash-test.log failed=0
: >"$log"
[ -e "$results" ] || cat >"$results" <<'T'
# The image store after kills, power cuts and full disks

Written by `make crash-test`: tests/tests/e2e/crash.rs with many rounds. Each round interrupts a pull, load, rmi or prune at another
moment (SIGKILL of the engine, or a copy of its disk as it is at that moment), starts an engine on what is left, checks the
whole store against its digests, record and tars (`tests/check-store.sh`), does the job to its end and checks again.

| date | commit | engine | test | rounds | result | seconds |
| --- | --- | --- | --- | --- | --- | --- |
T
try() { # test, marker of a round in its output, rounds wanted
  local begin=$SECONDS output result=passed rounds
  output=$(mktemp)
  cargo nextest run -p wherry-tests --no-capture -E "test(=crash::$1)" >"$output" 2>&1 || { result=FAILED; failed=1; }
  cat "$output" >>"$log"
  rounds=$(grep -c "$2" "$output" || true); rm -f "$output"
  [ "$rounds" -ge "$3" ] || { result=FAILED; failed=1; }
  printf '| %s | %s | %s | %s | %s of %s | %s | %s |\n' "$(date -u +%F\ %R)" "$(git rev-parse --short HEAD)" \
    "$("${ENGINE:-target/release/wherryd}" --version 2>/dev/null | head -1)" "$1" "$rounds" "$3" "$result" "$((SECONDS - begin))" | tee -a "$results"
}
try the_store_is_whole_wherever_the_engine_is_killed '^round .*: .* killed, whole and finished' "$CRASH_KILLS"
try the_store_is_whole_after_a_power_cut '^round .*: .* cut, whole and finished' "$CRASH_CUTS"
try a_full_disk_is_told_and_leaves_everything_as_it_was '^full disk: .* told' 3
[ "$failed" = 0 ] || echo "see $log" >&2
exit $failed
