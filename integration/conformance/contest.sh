#!/bin/bash
# contest.sh [RUNTIME | reference | crun]: runs youki's contest against RUNTIME (default: $RUNTIME or target/debug/wherry-runtime) and writes
# integration/results/conformance-contest.md. With "reference" it runs it against the lab's runc and writes
# integration/conformance/contest.baseline; with "crun" against the lab's crun, for a look only. GROUPS_="hooks exec" runs only those
# groups, and writes no report. See `view` for where it runs. The sources are YOUKI_GIT's newest commit; they are compiled once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P); repository=$(cd "$here/../.." && pwd -P)
# shellcheck source=suite.sh
. "$here/suite.sh"

build() { # outside: contest, runtimetest and the image, in $cache/bin
  local src=$cache/src
  [ -d "$src/tests/contest" ] || git clone -q --depth 1 "${YOUKI_GIT:-https://github.com/youki-dev/youki}" "$src"
  echo "youki $(git -C "$src" log -1 --format='%h of %cs')" >"$cache/version"
  mkdir -p "$cache/bin"
  (
    cd "$src"; export RUSTUP_TOOLCHAIN=${CONTEST_TOOLCHAIN:-stable} CARGO_TARGET_DIR=$cache/target
    nice -n 10 cargo build --bin contest
    # it runs in the containers, which have no libraries
    RUSTFLAGS=-Ctarget-feature=+crt-static nice -n 10 cargo build --target "$(uname -m)-unknown-linux-gnu" --bin runtimetest
  )
  cp "$cache/target/debug/contest" "$cache/target/$(uname -m)-unknown-linux-gnu/debug/runtimetest" "$cache/bin/"
  cp "$src/tests/contest/contest/bundle.tar.gz" "$cache/bin/"
  grep -rhoE 'TestGroup::new\("[^"]*"' "$src/tests/contest/contest/src/tests" | sed 's/.*"\(.*\)"/\1/' | sort -u >"$cache/bin/groups"
}

run() { # inside: RUNTIME [GROUP...] -> output of each group in /conformance/tap
  local runtime=$1 group; shift
  # what it asks of a runtime that is not youki
  export RUNTIME_KIND=runc
  rm -rf /conformance/tap; mkdir /conformance/tap; mkdir -p /tmp/contest; cd /tmp/contest
  cp /conformance/bin/bundle.tar.gz .
  # shellcheck disable=SC2046
  [ $# -gt 0 ] || set -- $(cat /conformance/bin/groups)
  # each on its own: one that panics ends all that are run with it
  for group; do
    timeout -k 5 "${STALL:-240}" /conformance/bin/contest run --runtime "$runtime" --runtimetest /conformance/bin/runtimetest -t "$group" \
      </dev/null >"/conformance/tap/$group" 2>"/conformance/tap/$group.err" 9>&- || echo "ended with $?" >>"/conformance/tap/$group"
    printf '%s: ' "$group"
    awk '/^[0-9]+ \/ [0-9]+ : .* : / { n[$NF == "ok" ? ($(NF - 1) == "not" ? "f" : "p") : "s"]++ } /^ended with/ { e = ", " $0 }
      END { printf "%d passed, %d failed, %d skipped%s\n", n["p"], n["f"], n["s"], e }' "/conformance/tap/$group"
  done
}

# Output of all groups -> "ok|not ok|skip <TAB> group <TAB> test <TAB> reason". A group that did not get to its results counts as
# one failure for each test that the baseline has of it, or one.
summary() {
  local file
  for file in "$1"/*; do
    case $file in *.err) continue ;; esac
    awk -v file="${file##*/}" -v baseline="$here/contest.baseline" '
      function flush() { if (word != "") print word "\t" file "\t" test "\t" reason; word = "" }
      /^[0-9]+ \/ [0-9]+ : / {
        flush(); n++; sub(/^[0-9]+ \/ [0-9]+ : /, ""); at = match($0, / : [a-z ]+$/)
        test = substr($0, 1, at - 1); word = substr($0, at + 3); if (word == "skipped") word = "skip"; reason = ""; next }
      /^# End/ { flush() }
      /^ended with/ { flush(); if (!n) { why = $0; while ((getline line < baseline) > 0) { split(line, b, "\t")
          if (b[2] == file) { print "not ok\t" file "\t" b[3] "\t" why; n++ } }
          if (!n) print "not ok\t" file "\t(the whole group)\t" why } }
      word != "" && NF { gsub(/[\t|]/, " "); if (reason == "") reason = substr($0, 1, 200) }
      END { flush() }' "$file"
  done | sort -t $'\t' -k2,3
}

if [ "${1:-}" = --run ]; then shift; run "$@"; exit; fi

begin_suite contest "$@"
export REFERENCE=runc
case $runtime in
  reference) inside=/usr/sbin/runc ;;
  crun) inside=/usr/bin/crun ;;
  *) bring_in ;;
esac
if [ ! -e "$cache/bin/groups" ]; then
  echo "contest.sh: compiling the suite in $cache (some minutes, log: $cache/build.log)"
  build >"$cache/build.log" 2>&1 || { tail -20 "$cache/build.log" >&2; exit 2; }
fi
# shellcheck disable=SC2086
"$here/view" contest "$here/contest.sh" --run "$inside" ${GROUPS_:-}
conclude "${GROUPS_:-}"
