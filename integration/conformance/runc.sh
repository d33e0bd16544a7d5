#!/bin/bash
# runc.sh [RUNTIME | reference]: runs runc's own bats suite against RUNTIME (default: $RUNTIME or target/debug/wherry-runtime) and
# writes integration/results/conformance-runc.md. With "reference" it runs it against the lab's runc instead, and writes
# integration/conformance/runc.baseline, which the report compares with. TESTS="kill exec" runs only those files, and writes no report.
# The suite is Debian's source package of runc; its two images are made of Debian's packages. See `view` for where it runs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P); repository=$(cd "$here/../.." && pwd -P)
# shellcheck source=suite.sh
. "$here/suite.sh"
SOURCES=/conformance/src

prepare() { # inside, with the host's network: packages, sources, the suite's own programs, images
  local program folder
  echo "deb-src $(awk '$1 == "deb" { print $2; exit }' /etc/apt/sources.list) sid main" >/etc/apt/sources.list.d/source.list
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get build-dep -y -q --no-install-recommends runc
  apt-get install -y -q --no-install-recommends bats busybox-static bsdextrautils criu debootstrap dpkg-dev gawk iproute2 jq \
    openssh-server procps runc sshfs uidmap xz-utils
  cd /conformance
  rm -rf src image; apt-get source -q runc;  rm -f ./*.tar.* ./*.dsc; mv runc-*/ src
  # Debian's packages of Go libraries are a GOPATH
  folder=/tmp/go/src/github.com/opencontainers; mkdir -p $folder; ln -sfn $SOURCES $folder/runc; cd $folder/runc
  mkdir -p tests/cmd/_bin
  for program in $(find tests/cmd -mindepth 2 -name '*.go' -printf '%h\n' | sort -u); do
    GOPATH=/tmp/go:/usr/share/gocode GO111MODULE=off GOFLAGS= go build -tags seccomp -o tests/cmd/_bin/ "./$program"
  done
  images "$SOURCES/tests/integration/testdata"
  dpkg-parsechangelog -l $SOURCES/debian/changelog | awk '/^(Source|Version):/ { printf "%s ", $2 }' >/conformance/version
  touch /conformance/prepared
}

images() { # busybox, and a small Debian
  local out=$1 arch root=/conformance/image applet; arch=$(go env GOARCH)
  mkdir -p $root/{bin,dev,etc,home,proc,root,sys,tmp,usr/bin,usr/sbin,var/spool/mail,var/www}
  cp /bin/busybox $root/bin/busybox
  # the tests run these through a link as well as through the shell
  for applet in $(/bin/busybox --list); do [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"; done
  ln -s ../../bin/env $root/usr/bin/env
  printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >$root/etc/passwd
  printf 'root:x:0:\ndaemon:x:1:\nusers:x:100:\nnobody:x:65534:\n' >$root/etc/group
  chmod 1777 $root/tmp; chmod 700 $root/root
  tar -C $root -cf "$out/busybox-$arch.tar.xz" .
  rm -rf $root
  debootstrap --variant=minbase sid $root "$(awk '$1 == "deb" { print $2; exit }' /etc/apt/sources.list)"
  # it is unpacked for each test
  rm -rf $root/var/cache/apt $root/var/lib/apt/lists $root/usr/share/{doc,locale,man,info,zoneinfo}
  tar -C $root -cf "$out/debian-$arch.tar.xz" .
  rm -rf $root
}

run() { # inside: RUNTIME [FILE...] -> TAP of each file in /conformance/tap
  local runtime=$1 file; shift
  # runc's name, since the tests of the help look for it
  export RUNC=/usr/local/libexec/under-test/runc
  install -D "$runtime" "$RUNC"
  # a keyboard on which nobody types
  mkfifo /tmp/keyboard; exec 8<>/tmp/keyboard
  cd "$SOURCES/tests/integration"
  rm -rf /conformance/tap; mkdir /conformance/tap
  # shellcheck disable=SC2046
  [ $# -gt 0 ] || set -- $(printf '%s\n' *.bats | sed 's/\.bats$//')
  for file; do
    run_file "$file.bats" "/conformance/tap/$file"
    printf '%s: ' "$file"; awk '/^ok .* # skip/ { s++; next } /^ok / { p++ } /^not ok / { f++ }
      END { printf "%d passed, %d failed, %d skipped\n", p, f, s }' "/conformance/tap/$file"
  done
}

# Runs a file. A test without an answer for STALL seconds has failed; the file goes on with the one after it.
run_file() {
  local file=$1 out=$2 all done rest=. size quiet job
  mapfile -t all < <(sed -n 's/^@test "\(.*\)" {$/\1/p' "$file" | sed 's/\\\(["$`\\]\)/\1/g')
  : >"$out"
  while [ -n "$rest" ]; do
    # runc wants a controlling terminal for containers that have one
    printf 'exec bats --tap --filter %q %q >%q 2>>%q' "$rest" "$file" "$out.part" "$out.err" >/tmp/bats-call
    : >"$out.part"
    setsid script -qec 'bash /tmp/bats-call' /dev/null <&8 >/dev/null 8>&- &
    job=$!; quiet=0; size=0
    while kill -0 $job 2>/dev/null; do
      sleep .5
      if [ "$(stat -c %s "$out.part")" != "$size" ]; then size=$(stat -c %s "$out.part"); quiet=0; else quiet=$((quiet + 1)); fi
      # what a failed test has left may keep the last one's output open
      [ $quiet -lt 20 ] || [ "$(results "$out.part")" -lt "$(sed -n 's/^1\.\.//p' "$out.part" | head -1)" ] || { end_all; break; }
      [ $quiet -lt $((${STALL:-100} * 2)) ] || { end_all; break; }
    done
    wait $job 2>/dev/null || true
    cat "$out.part" >>"$out"; rm -f "$out.part"
    done=$(results "$out")
    [ "$done" -lt ${#all[@]} ] || break
    echo "not ok $((done + 1)) ${all[done]}" >>"$out"
    echo "# no answer for ${STALL:-100} seconds" >>"$out"
    rest=$(printf '%s\n' "${all[@]:done + 1}" | sed 's/[][\.*^$+?(){}|/]/\\&/g' | paste -sd '|')
    [ -z "$rest" ] || rest="^($rest)\$"
  done
}

results() { grep -cE '^(not )?ok ' "$1" || true; }

end_all() { # ends everything in this process namespace but what runs this
  local state pid
  for state in $(find /sys/fs/cgroup/freezer -mindepth 2 -name freezer.state 2>/dev/null); do echo THAWED >"$state" || true; done
  for pid in $(ps -eo pid=); do [ "$pid" = 1 ] || [ "$pid" = $$ ] || [ "$pid" = "$PPID" ] || kill -9 "$pid" 2>/dev/null || true; done
}

# TAP of all files -> "ok|not ok|skip <TAB> file <TAB> test <TAB> reason", sorted.
summary() {
  local file
  for file in "$1"/*; do
    case $file in *.err) continue ;; esac
    awk -v file="${file##*/}" '/^(not )?ok / {
      word = /^not/ ? "not ok" : "ok"; sub(/^(not )?ok [0-9]+ /, ""); reason = ""
      if (match($0, / # skip/)) { word = "skip"; reason = substr($0, RSTART + 8); $0 = substr($0, 1, RSTART - 1); gsub(/^ *\(?|\)$/, "", reason) }
      sub(/ # in [0-9]+ (ms|sec)$/, "")
      print word "\t" file "\t" $0 "\t" reason }' "$file"
  done | sort -t $'\t' -k2,3
}

case ${1:-} in
  --prepare) prepare; exit ;;
  --run) shift; run "$@"; exit ;;
esac

begin_suite runc "$@"
if [ "$runtime" = reference ]; then inside=/usr/sbin/runc; else bring_in; fi
if [ ! -e "$cache/prepared" ]; then
  echo "runc.sh: preparing the suite in $cache (some minutes, log: $cache/prepare.log)"
  NET=host "$here/view" runc "$here/runc.sh" --prepare >"$cache/prepare.log" 2>&1 || { tail -20 "$cache/prepare.log" >&2; exit 2; }
fi
# shellcheck disable=SC2086
"$here/view" runc "$here/runc.sh" --run "$inside" ${TESTS:-}
conclude "${TESTS:-}"
