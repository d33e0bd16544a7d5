#!/bin/bash
# guests.sh [RUNTIME]: dockerd, containerd (ctr) and Podman of ../shared/lab with RUNTIME (default: $RUNTIME or
# target/debug/wherry-runtime) in runc's place: run, exec, terminal, limits, kill and more, each tried.
# Writes integration/results/runtime-guests.md. See `view` for where it runs; the engines have data of their own in there.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd -P); repository=$(cd "$here/../.." && pwd -P)
RUNTIME_INSIDE=/usr/local/bin/wherry-runtime
TAB=$'\t'

check() { # ENGINE WHAT EXPECTED-PATTERN CMD...: the output of CMD must match, and CMD must end with ${CODE:-0}
  local engine=$1 what=$2 pattern=$3 output code; shift 3
  output=$(timeout 60 "$@" 2>&1 </dev/null); code=$?
  output=${output//$'\r'/}; output=${output#^@} # what script types at the end of its input
  if [ "$code" = "${CODE:-0}" ] && grep -qE -- "$pattern" <<<"$output"; then echo "ok$TAB$engine$TAB$what" >>/conformance/results
  else
    echo "not ok$TAB$engine$TAB$what" >>/conformance/results
    printf '%s: %s: code %s (expected %s), expected /%s/, got:\n%s\n' "$engine" "$what" "$code" "${CODE:-0}" "$pattern" "$output"
  fi
}

wait_for() { local i; for i in $(seq 100); do "$@" >/dev/null 2>&1 && return; sleep .1; done; echo "guests.sh: no answer: $*"; return 1; }

image() { # busybox, as `docker load` and `ctr images import` take it
  [ -e /conformance/image.tar ] && return
  local root=/tmp/image applet; mkdir -p $root/bin $root/tmp $root/etc
  cp /bin/busybox $root/bin/; for applet in $(/bin/busybox --list); do [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"; done
  echo 'root:x:0:0:root:/root:/bin/sh' >$root/etc/passwd
  tar -C $root -cf /tmp/layer.tar .
  mkdir /tmp/oci; cd /tmp/oci
  local id; id=$(sha256sum </tmp/layer.tar | cut -d' ' -f1)
  mkdir "$id"; mv /tmp/layer.tar "$id/layer.tar"
  printf '{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"],"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$id" >config.json
  printf '[{"Config":"config.json","RepoTags":["busybox:latest"],"Layers":["%s/layer.tar"]}]' "$id" >manifest.json
  tar -cf /conformance/image.tar . ; cd /
}

docker_guest() {
  mkdir -p /tmp/docker
  containerd --root /conformance/data/containerd --state /run/containerd --address /run/containerd/containerd.sock >/conformance/containerd.log 2>&1 &
  wait_for test -S /run/containerd/containerd.sock || return
  dockerd --data-root /conformance/data/docker --exec-root /run/docker --containerd /run/containerd/containerd.sock -H unix:///run/d.sock \
    --bridge none --iptables=false --add-runtime "wherry=$RUNTIME_INSIDE" --default-runtime wherry >/conformance/dockerd.log 2>&1 &
  export DOCKER_HOST=unix:///run/d.sock
  wait_for docker version || return
  docker load -qi /conformance/image.tar >/dev/null
  local e=dockerd v; v=$(docker version -f '{{.Server.Version}}')
  echo "dockerd $v" >>/conformance/versions
  check $e 'is told the default runtime' '^wherry$' docker info -f '{{.DefaultRuntime}}'
  check $e 'run' '^hello$' docker run --rm busybox echo hello
  CODE=7 check $e 'exit code' '^$' docker run --rm busybox sh -c 'exit 7'
  CODE=127 check $e 'missing program' 'executable file not found' docker run --rm busybox nosuch
  CODE=126 check $e 'program without permission' 'permission denied' docker run --rm busybox /etc/passwd
  check $e 'terminal' '^/dev/pts/0' script -qec 'docker run --rm -t busybox tty' /dev/null
  check $e 'standard input' '^in$' sh -c 'echo in | docker run --rm -i busybox cat'
  check $e 'memory and pids limits' '^67108864 33$' docker run --rm -m 64m --pids-limit 33 -v /sys/fs/cgroup:/cg:ro --cgroupns private busybox \
    sh -c 'echo $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes) $(cat /sys/fs/cgroup/pids/pids.max)'
  check $e 'cpu limit' '^50000$' docker run --rm --cpus 0.5 busybox cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us
  check $e 'user, working folder, environment' '^1000 /tmp x$' docker run --rm -u 1000 -w /tmp -e A=x busybox sh -c 'echo $(id -u) $(pwd) $A'
  check $e 'read-only root' 'Read-only file system' docker run --rm --read-only busybox sh -c 'touch /x || true'
  check $e 'volume' '^v$' docker run --rm -v vol:/v busybox sh -c 'echo v >/v/f; cat /v/f'
  check $e 'privileged' '^yes$' docker run --rm --privileged busybox sh -c 'test -e /dev/loop-control && echo yes'
  check $e 'host namespaces' '^same$' sh -c "[ \$(docker run --rm --pid host --ipc host --net host busybox readlink /proc/self/ns/ipc) = \$(readlink /proc/self/ns/ipc) ] && echo same"
  check $e 'start in the background' '^[0-9a-f]{64}$' docker run -d --name box busybox sh -c 'trap "exit 3" USR1; while :; do sleep .1; done'
  check $e 'exec' '^[0-9]+$' docker exec box sh -c 'echo $$'
  CODE=5 check $e 'exec: exit code' '^$' docker exec box sh -c 'exit 5'
  check $e 'exec: terminal' '^/dev/pts/0' script -qec 'docker exec -t box tty' /dev/null
  check $e 'exec: in the background' '^ran$' sh -c 'docker exec -d box touch /tmp/ran; for i in $(seq 50); do docker exec box test -e /tmp/ran && echo ran && break; sleep .1; done'
  check $e 'top' 'sleep|sh -c' docker top box
  check $e 'stats' 'box' docker stats --no-stream --format '{{.Name}}' box
  check $e 'update' '^box$' docker update -m 100m --memory-swap 100m box
  check $e 'update: the new limit' '^104857600$' docker exec box cat /sys/fs/cgroup/memory/memory.limit_in_bytes
  check $e 'pause' '^true$' sh -c 'docker pause box >/dev/null; docker inspect -f "{{.State.Paused}}" box'
  check $e 'unpause' '^false$' sh -c 'docker unpause box >/dev/null; docker inspect -f "{{.State.Paused}}" box'
  check $e 'kill with a signal' '^3$' sh -c 'docker kill -s USR1 box >/dev/null; docker wait box'
  check $e 'start again' '^running$' sh -c 'docker start box >/dev/null; docker inspect -f "{{.State.Status}}" box'
  check $e 'kill' '^137$' sh -c 'docker kill box >/dev/null; docker wait box'
  check $e 'remove' '^box$' docker rm box
  check $e 'init' '^ *1 .*docker-init' docker run --rm --init busybox ps -o pid,args
  check $e 'nothing is left' '^$' sh -c "$RUNTIME_INSIDE --root /run/docker/runtime-runc/moby list -q; docker ps -aq"
}

ctr_guest() {
  local e=containerd ctr="ctr -a /run/containerd/containerd.sock"
  echo "containerd $(containerd --version | awk '{ print $3 }')" >>/conformance/versions
  $ctr images import /conformance/image.tar >/dev/null
  local run="$ctr run --runc-binary $RUNTIME_INSIDE" image=docker.io/library/busybox:latest
  check $e 'run' '^hello$' $run --rm $image c1 echo hello
  CODE=7 check $e 'exit code' '^$' $run --rm $image c1 sh -c 'exit 7'
  check $e 'terminal' '^/dev/pts/0' script -qec "$run --rm -t $image c1 tty" /dev/null
  check $e 'limits' '^33554432$' sh -c "$run -d --memory-limit 33554432 $image c3 sleep 1000; cat /sys/fs/cgroup/memory/default/c3/memory.limit_in_bytes
    $ctr tasks kill -s KILL c3; $ctr tasks rm -f c3 >/dev/null 2>&1; $ctr containers rm c3"
  check $e 'seccomp, read-only' '^2$' $run --rm --seccomp --read-only $image c1 sh -c 'grep Seccomp: /proc/self/status | tr -cd 0-9'
  check $e 'start in the background' '^$' $run -d $image c2 sleep 1000
  check $e 'list' 'c2 .*RUNNING' $ctr tasks ls
  check $e 'exec' '^in$' $ctr tasks exec --exec-id e1 c2 echo in
  CODE=9 check $e 'exec: exit code' '^$' $ctr tasks exec --exec-id e2 c2 sh -c 'exit 9'
  check $e 'exec: terminal' '^/dev/pts/0' script -qec "$ctr tasks exec -t --exec-id e3 c2 tty" /dev/null
  check $e 'processes' '^[0-9]+' $ctr tasks ps c2
  check $e 'metrics' 'memory' $ctr tasks metrics c2
  check $e 'pause' 'PAUSED' sh -c "$ctr tasks pause c2; $ctr tasks ls"
  check $e 'resume' 'RUNNING' sh -c "$ctr tasks resume c2; $ctr tasks ls"
  check $e 'kill' 'STOPPED' sh -c "$ctr tasks kill -s KILL c2; for i in \$(seq 50); do $ctr tasks ls | grep STOPPED && break; sleep .1; done"
  check $e 'remove' '^$' sh -c "$ctr tasks rm c2 >/dev/null 2>&1; $ctr containers rm c2"
  check $e 'nothing is left' '^$' $RUNTIME_INSIDE --root /run/containerd/runc/default list -q
}

podman_guest() {
  local e=podman p="podman --root /conformance/data/podman --runroot /run/podman --cgroup-manager cgroupfs --storage-driver overlay --runtime $RUNTIME_INSIDE"
  echo "podman $(podman --version | awk '{ print $3 }')" >>/conformance/versions
  $p load -qi /conformance/image.tar >/dev/null
  local i=localhost/busybox:latest; $p image exists $i || i=docker.io/library/busybox:latest
  check $e 'run' '^hello$' $p run --rm --network none $i echo hello
  CODE=7 check $e 'exit code' '^$' $p run --rm --network none $i sh -c 'exit 7'
  CODE=127 check $e 'missing program' 'not found' $p run --rm --network none $i nosuch
  check $e 'terminal' '^/dev/pts/0' script -qec "$p run --rm -t --network none $i tty" /dev/null
  check $e 'limits' '^67108864 33$' $p run --rm --network none -m 64m --pids-limit 33 $i \
    sh -c 'echo $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes) $(cat /sys/fs/cgroup/pids/pids.max)'
  check $e 'user namespace' '^ *0 +[1-9][0-9]* ' $p run --rm --network none --uidmap 0:100000:5000 $i cat /proc/self/uid_map
  check $e 'start in the background' '^[0-9a-f]{64}$' $p run -d --name box --network none $i sh -c 'trap "exit 3" USR1; while :; do sleep .1; done'
  check $e 'inspect names the runtime' 'wherry-runtime' $p inspect -f '{{.OCIRuntime}}' box
  check $e 'exec' '^in$' $p exec box echo in
  CODE=5 check $e 'exec: exit code' '^$' $p exec box sh -c 'exit 5'
  check $e 'exec: terminal' '^/dev/pts/' script -qec "$p exec -t box tty" /dev/null
  check $e 'top' 'sh' $p top box
  check $e 'pause' '^paused$' sh -c "$p pause box >/dev/null; $p inspect -f '{{.State.Status}}' box"
  check $e 'unpause' '^running$' sh -c "$p unpause box >/dev/null; $p inspect -f '{{.State.Status}}' box"
  check $e 'kill with a signal' '^3$' sh -c "$p kill -s USR1 box >/dev/null; $p wait box"
  check $e 'start again' '^running$' sh -c "$p start box >/dev/null; $p inspect -f '{{.State.Status}}' box"
  check $e 'kill' '^137$' sh -c "$p kill box >/dev/null; $p wait box"
  check $e 'remove' 'box' $p rm box
  check $e 'nothing is left' '^$' sh -c "$RUNTIME_INSIDE list -q; $p ps -aq"
}

inside() {
  cp /conformance/runtime $RUNTIME_INSIDE
  rm -rf /conformance/data /conformance/results /conformance/versions
  mkdir -p /conformance/data; : >/conformance/results
  export PODMAN_IGNORE_CGROUPSV1_WARNING=1
  echo 1 >/proc/sys/net/ipv4/ip_forward # of this namespace; dockerd warns otherwise
  image
  docker_guest; ctr_guest; podman_guest
}

if [ "${1:-}" = --inside ]; then inside; exit 0; fi
cache=${CONFORMANCE:-/var/lib/wherry-lab/conformance}/guests
runtime=${1:-${RUNTIME:-$repository/target/debug/wherry-runtime}}
[ -x "$runtime" ] || { echo "guests.sh: there is no runtime at $runtime" >&2; exit 2; }
mkdir -p "$cache"; cp "$runtime" "$cache/runtime"
"$here/view" guests "$here/guests.sh" --inside || exit 2
passed=$(grep -c '^ok' "$cache/results") failed=$(grep -c '^not ok' "$cache/results")
{
  printf '# wherry-runtime as the runtime of other engines\n\nWritten by `make test-runtime-guests`: %s UTC, commit %s, kernel %s.\nEngines: %s. %d passed, %d failed.\n\n' \
    "$(date -u '+%F %R')" "$(git -C "$repository" rev-parse --short HEAD)" "$(uname -r)" "$(paste -sd, "$cache/versions" | sed 's/,/, /g')" "$passed" "$failed"
  printf '| engine | what | |\n| --- | --- | --- |\n'
  awk -F '\t' '{ printf "| %s | %s | %s |\n", $2, $3, $1 == "ok" ? "passed" : "FAILED" }' "$cache/results"
} >"$repository/integration/results/runtime-guests.md"
rm -rf "$cache/data"
echo "guests: $passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
