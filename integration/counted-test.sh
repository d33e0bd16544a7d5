# Sourced by the scripts that run one test, which prints its counts, and keep them in a page of integration/results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# counted_test WORD PACKAGE PROGRAM TEST: runs the test; what it prints as "WORD: NAME=NUMBER …" is there for `count`, and
# $outcome says how it went.
counted_test() {
  local log
  log=$(mktemp); outcome=passed
  cargo test -q -p "$2" --test "$3" -- --exact --nocapture "$4" 2>&1 | tee "$log" || outcome="**failed**"
  line=$(grep -aoE "$1: .*" "$log" || true)
  rm -f "$log"
}

count() { grep -oE "$1=[0-9]+" <<<"$line" | cut -d= -f2 || echo -; }

# keep PAGE CELL...: adds a line to the page's table; the page begins with standard input. Fails if the test has.
keep() {
  local page=integration/results/$1 cells
  shift
  [ -s "$page" ] || cat >"$page"
  cells=$(printf ' %s |' "$(date -u '+%F %R')" "$(git rev-parse --short HEAD)" "$@" "$outcome")
  echo "|$cells" >>"$page"
  [ "$outcome" = passed ]
}
