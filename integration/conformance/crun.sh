#!/bin/bash
# crun.sh [RUNTIME | reference]: runs crun's own tests (tests/*.py and tests/init.c of version 1.28) against RUNTIME (default: $RUNTIME or
# target/debug/wherry-runtime) and writes integration/results/conformance-crun.md. With "reference" it runs them against the lab's crun
# and writes integration/conformance/crun.baseline; with "runc" against the lab's runc, for a look only. TESTS="mounts exec" runs only those
# files, and writes no report. See `view` for where it runs, and `crun-adapter` for what is done about options that only crun has.
# The sources are a tag of CRUN_GIT, else Debian's source package.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P); repository=$(cd "$here/../.." && pwd -P)
# shellcheck source=suite.sh
. "$here/suite.sh"
VERSION=1.28
SOURCES=/conformance/src

prepare() { # inside, with the host's network
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -y -q --no-install-recommends python3 gcc libc6-dev libseccomp-dev iproute2 procps criu dpkg-dev uidmap
  # for test_mounts, where the suite has it
  apt-get install -y -q --no-install-recommends python3-libmount || true
  cd /conformance
  if [ ! -d src/tests ]; then
    echo "deb-src $(awk '$1 == "deb" { print $2; exit }' /etc/apt/sources.list) sid main" >/etc/apt/sources.list.d/source.list
    apt-get update -q; apt-get source -q crun; rm -f ./*.tar.* ./*.dsc; mv crun-*/ src
  fi
  # the part of crun's configure that the init of its containers wants to know
  printf '#define %s 1\n' HAVE_ERROR_H HAVE_LINUX_IOPRIO_H HAVE_SECCOMP >src/config.h
  gcc -static -O2 -I src -o src/tests/init src/tests/init.c -lseccomp
  echo "crun $VERSION" >version
  touch prepared
}

run() { # inside: RUNTIME [FILE...] -> TAP of each file in /conformance/tap
  local runtime=$1 file state; shift
  export RUNTIME=$runtime INIT=$SOURCES/tests/init OCI_RUNTIME=$here/crun-adapter
  [ "$runtime" != /usr/bin/crun ] || OCI_RUNTIME=$runtime
  rm -rf /conformance/tap; mkdir /conformance/tap /run/user; cd "$SOURCES"
  # shellcheck disable=SC2046
  [ $# -gt 0 ] || set -- $(sed -n '/^PYTHON_TESTS/,/[^\\]$/p' Makefile.am | grep -o 'test_[a-z_]*' | sed 's/^test_//')
  for file; do
    run_file "$file" "/conformance/tap/$file"
    # a test freezes a container, and not every runtime gets it away: it would outlive this view
    for state in $(find /sys/fs/cgroup/freezer -mindepth 2 -name freezer.state 2>/dev/null); do echo THAWED >"$state" 2>/dev/null || true; done
    printf '%s: ' "$file"; awk '/^ok .*#SKIP/ { s++; next } /^ok / { p++ } /^not ok / { f++ }
      END { printf "%d passed, %d failed, %d skipped\n", p, f, s }' "/conformance/tap/$file"
  done
}

# Runs a file. A test that does not end has failed; the file goes on with the one after it.
run_file() {
  local file=$1 out=$2 all name rest=()
  mapfile -t all < <(cd tests && python3 -c "import test_$file as t; print(*t.all_tests, sep='\n')" | grep -v '^1\.\.0$')
  : >"$out"
  [ -n "${all[*]}" ] || return 0 # in this version one file has none
  rest=("${all[@]}")
  while [ ${#rest[@]} -gt 0 ]; do
    [ ${#rest[@]} = ${#all[@]} ] || export RUN_TESTS="${rest[*]}"
    timeout -k 5 "${STALL:-150}" python3 "tests/test_$file.py" </dev/null >"$out.part" 2>>"$out.err" 9>&- || true
    grep -aE '^(not )?ok ' "$out.part" >>"$out" || true
    name=0; name=$(grep -acE '^(not )?ok ' "$out.part") || true
    rm -f "$out.part"
    [ "$name" -lt ${#rest[@]} ] || break
    echo "not ok 0 - ${rest[name]} # no answer" >>"$out"
    rest=("${rest[@]:name + 1}")
  done
  unset RUN_TESTS
}

# TAP of all files -> "ok|not ok|skip <TAB> file <TAB> test <TAB> reason", sorted.
summary() {
  local file
  for file in "$1"/*; do
    case $file in *.err) continue ;; esac
    awk -v file="${file##*/}" '/^(not )?ok / {
      word = /^not/ ? "not ok" : "ok"; sub(/^(not )?ok [0-9]+ - /, ""); reason = ""
      sub(/ # [0-9.]+s$/, "")
      if (match($0, / #SKIP/)) { word = "skip"; reason = substr($0, RSTART + 7); $0 = substr($0, 1, RSTART - 1) }
      if (match($0, / # /)) { reason = substr($0, RSTART + 3); $0 = substr($0, 1, RSTART - 1) }
      print word "\t" file "\t" $0 "\t" reason }' "$file"
  done | sort -t $'\t' -k2,3
}

case ${1:-} in
  --prepare) prepare; exit ;;
  --run) shift; run "$@"; exit ;;
esac

begin_suite crun "$@"
case $runtime in
  reference) inside=/usr/bin/crun ;;
  runc) inside=/usr/sbin/runc ;;
  *) bring_in ;;
esac
if [ ! -e "$cache/prepared" ]; then
  echo "crun.sh: preparing the suite in $cache (log: $cache/prepare.log)"
  [ -d "$cache/src/tests" ] ||
    git clone -q --depth 1 --branch $VERSION "${CRUN_GIT:-https://github.com/containers/crun}" "$cache/src" 2>"$cache/prepare.log" || rm -rf "$cache/src"
  NET=host "$here/view" crun "$here/crun.sh" --prepare >>"$cache/prepare.log" 2>&1 || { tail -20 "$cache/prepare.log" >&2; exit 2; }
fi
# shellcheck disable=SC2086
"$here/view" crun "$here/crun.sh" --run "$inside" ${TESTS:-}
conclude "${TESTS:-}"
