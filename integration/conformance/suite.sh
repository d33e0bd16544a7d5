# What runc.sh, crun.sh and contest.sh have in common; they source it. They set `here`, `repository`, and `summary FOLDER`, which prints
# "ok|not ok|skip <TAB> file <TAB> test <TAB> reason" for each test.

# begin_suite NAME [RUNTIME]: sets `cache`, `runtime` and `begin`
begin_suite() {
  suite=$1 cache=${CONFORMANCE:-/var/lib/wherry-lab/conformance}/$1 begin=$SECONDS
  runtime=${2:-${RUNTIME:-$repository/target/debug/wherry-runtime}}
  mkdir -p "$cache"
}

# Puts the runtime under test where the suite finds it, and sets `inside` to its name there.
bring_in() {
  [ -x "$runtime" ] || { echo "$suite.sh: there is no runtime at $runtime" >&2; exit 2; }
  cp "$runtime" "$cache/runtime"; inside=/conformance/runtime
}

count() { awk -F '\t' -v w="$1" '$1 == w { n++ } END { print n + 0 }' "$cache/summary"; }

# conclude [SELECTION]: the baseline or the report, unless only a selection was run; and the counts
conclude() {
  summary "$cache/tap" >"$cache/summary"
  if [ -z "${1:-}" ]; then
    case $runtime in
      reference) cp "$cache/summary" "$here/$suite.baseline" ;;
      runc | crun) ;; # for a look only
      *) "$here/report.sh" "$suite" "$here/$suite.baseline" "$cache/summary" "$("$runtime" --version | head -1)" "$((SECONDS - begin))" \
        >"$repository/integration/results/conformance-$suite.md" ;;
    esac
  fi
  echo "$suite: $(count ok) passed, $(count 'not ok') failed, $(count skip) skipped"
}
