#!/bin/bash
# `make test-docker-py DOCKER_PY=FOLDER`: docker-py's own integration tests, from a copy of its repository (version 7.1.0), against an
# engine in a private host (tests/host.sh). What needs swarm, plugins or a
# credential helper is set aside. ENGINE names the engine; with integration/engines/dockerd
# the outcome becomes the baseline, docker-py.baseline; else the report goes to integration/results/docker-py.md.
#   docker-py.sh FOLDER [PYTEST'S SELECTION …]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P) repository=$(cd "$(dirname "$0")/../.." && pwd -P)
source "$here/suite.sh"
[ -f "${1:-}/tests/integration/api_container_test.py" ] || {
  echo "docker-py.sh: give the folder of docker-py's repository (https://github.com/docker/docker-py, tag 7.1.0): make test-docker-py DOCKER_PY=FOLDER" >&2; exit 2; }
sources=$(readlink -f "$1"); shift
engine=$(readlink -f "${ENGINE:-$repository/target/release/wherryd}")
[ -x "$engine" ] || { echo "docker-py.sh: no engine at $engine: run \`make build\`" >&2; exit 2; }
case $engine in */engines/dockerd) runtime=reference ;; *) runtime=wherryd ;; esac
export REFERENCE=dockerd WRITTEN_BY='make test-docker-py'
venv=$repository/target/docker-py/venv cache=$repository/target/docker-py/$runtime begin=$SECONDS suite=docker-py
mkdir -p "$cache"
[ -x "$venv/bin/pytest" ] || {
  python3 -m venv "$venv"
  "$venv/bin/pip" -q install pytest==7.4.2 pytest-timeout==2.1.0 requests urllib3 paramiko websocket-client
}
git -C "$sources" describe --tags 2>/dev/null | sed 's/^/docker-py /' >"$cache/version" || true
[ -s "$cache/version" ] || echo "docker-py 7.1.0" >"$cache/version"

work=$(mktemp -d /var/tmp/wherry-dpy.XXXXXX); mkdir "$work/tmp" "$work/registry" "$work/docker"
coproc HOST { exec "$repository/tests/host.sh" "$work" 2>>"$work/log"; }
host_pid=$HOST_PID host_in=${HOST[1]} host_out=${HOST[0]}
cleanup() {
  local status=$?
  exec {host_in}>&-     # the end of its input ends the host and all that is in it
  wait "$host_pid" 2>/dev/null || true
  while read -r folder; do find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null; done <"$work/cgroups" || true
  cp "$work/log" "$cache/engine.log" 2>/dev/null || true
  rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT
# Evaluates a line in process 1 of the host; its output comes before a byte 1 and the exit status.
answer() {
  local text status
  IFS= read -r -d $'\001' -u "$host_out" text && read -r -u "$host_out" status
  printf '%s' "$text"
  return "$status"
}
on_host() { printf '%s\n' "$*" >&"$host_in"; answer; }
answer # it is ready
inside=$(cat "/proc/$host_pid/task/$host_pid/children"); inside=${inside%% *}

# A registry stands in for Docker Hub: the host has no way out.
cat >"$work/registry.yml" <<Y
version: 0.1
storage: { filesystem: { rootdirectory: $work/registry } }
http: { addr: "127.0.0.1:5000" }
Y
on_host "setsid docker-registry serve $work/registry.yml </dev/null >>$work/registry.log 2>&1 &"
on_host "setsid $engine -H unix://$work/socket --data-root $work/data --exec-root $work/exec --pidfile $work/pid --registry-mirror http://127.0.0.1:5000 </dev/null >>$work/log 2>&1 &"
export DOCKER_HOST=unix://$work/socket DOCKER_CONFIG=$work/docker
for _ in $(seq 300); do ! docker version >/dev/null 2>&1 || break; sleep .1; done
mkdir -p "$work/extra/etc" "$work/extra/var/opt"
printf 'root:x:0:0:root:/root:/bin/sh\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\n' >"$work/extra/etc/passwd"
for image in alpine:3.10 alpine:latest hello-world:latest busybox:latest; do
  echo "$image" >"$work/extra/etc/issue"  # no two of them share a layer
  config='{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["/bin/sh"]}'
  [ $image != hello-world:latest ] || config='{"Cmd":["echo","Hello from Docker!"]}'
  "$repository/tests/busybox-image.sh" "$work/image.tar" "$image" "$config" "$work/extra"
  nsenter -n -t "$inside" skopeo copy -q --dest-tls-verify=false "docker-archive:$work/image.tar" "docker://127.0.0.1:5000/library/$image"
done
cp -r "$sources" "$work/docker-py"  # they write beside themselves
nsenter -m -n -p -u -t "$inside" sh -c "cd $work/docker-py && TMPDIR=$work/tmp HOME=$work PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$work/docker-py exec $venv/bin/pytest -p no:cacheprovider \
  -q --timeout 120 --junitxml $work/junit.xml --ignore-glob '*swarm*' --ignore-glob '*service*' --ignore-glob '*plugin*' --ignore-glob '*secret*' \
  --ignore-glob '*api_config*' --ignore-glob '*nodes*' -k 'not (network and (scope or attachable or ingress)) and not TestStore' ${*:-tests/integration}" >"$cache/log" 2>&1 || true
tail -n 1 "$cache/log"
[ -s "$work/junit.xml" ] || { tail -n 20 "$cache/log" >&2; exit 1; }

# The names by which baseline and causes know a test: file, then class and test.
"$venv/bin/python" - "$work/junit.xml" >"$cache/summary" <<'PYTHON'
import sys, xml.etree.ElementTree as tree
for case in tree.parse(sys.argv[1]).iter("testcase"):
    *folders, module, group = case.get("classname").split(".")
    if not module.endswith("_test"):  # a test without a class
        module, group = group, ""
    outcome, reason = "ok", ""
    for child in case:
        if child.tag in ("failure", "error"):
            outcome, reason = "not ok", (child.get("message") or "").splitlines()[0:1]
        elif child.tag == "skipped":
            outcome, reason = "skip", [child.get("message") or ""]
    reason = "".join(reason).replace("\t", " ").replace("|", "/")[:160]
    print(outcome, module, (group + "." if group else "") + case.get("name"), reason, sep="\t")
PYTHON
if [ $# = 0 ]; then
  case $runtime in
    reference) cp "$cache/summary" "$here/docker-py.baseline" ;;
    *) "$here/report.sh" docker-py "$here/docker-py.baseline" "$cache/summary" "$("$engine" --version | head -1)" "$((SECONDS - begin))" \
      >"$repository/integration/results/docker-py.md" ;;
  esac
fi
echo "docker-py: $(count ok) passed, $(count 'not ok') failed, $(count skip) skipped"
