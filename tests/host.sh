#!/bin/bash
# A private "host" for one engine: network, mount, process, UTS and cgroup namespaces with one address, its own /etc, /run,
# firewall and cgroup trees. Whatever is in it ends with it, and it ends when its standard input does: a test that dies,
# however it dies, leaves nothing.
# WHERRY_TEST_CGROUP=v2 shows the unified hierarchy alone, with what controllers it has (none where v1 holds them all);
# v1-only hides it (crun wants nothing of it beside v1's).
#   host.sh WORK        then each line of standard input is evaluated here, as process 1; its output is followed by a
#                       line with the byte 1 and the exit status
set -euo pipefail
HOST_ADDRESS=198.51.100.73      # of the documentation range, on an interface that leads nowhere
NAME=wherry-test-$(basename "${2:-$1}")

# Our folder in the cgroup hierarchy $1, a line of /proc/self/cgroup: below the one that we are in.
own_cgroup() {
  local controllers path mount
  IFS=: read -r _ controllers path <<<"$1"
  case $controllers in
    "") mount=/sys/fs/cgroup; [ ! -d $mount/unified ] || mount=$mount/unified ;;
    name=*) mount=/sys/fs/cgroup/${controllers#name=} ;;
    *) mount=/sys/fs/cgroup/$controllers ;;
  esac
  echo "$mount${path%/}/$NAME"
}

cgroups() { while read -r line; do own_cgroup "$line"; done </proc/self/cgroup; }

outer() {
  local folder
  for folder in $(cgroups); do
    [ ! -e "$(dirname "$folder")/cgroup.clone_children" ] || mkdir -p "$folder"
    case $folder in */cpuset/*) echo 1 >"$folder/cgroup.clone_children"
      cat "$(dirname "$folder")/cpuset.cpus" >"$folder/cpuset.cpus"; cat "$(dirname "$folder")/cpuset.mems" >"$folder/cpuset.mems" ;;
    esac
    mkdir -p "$folder"
    echo "$folder" >>"$WORK/cgroups"
  done
  for folder in $(cat "$WORK/cgroups"); do echo $$ >"$folder/cgroup.procs"; done
  exec unshare --cgroup bash "$0" --middle "$WORK"
}

# Has the cgroup namespace. In the unified hierarchy processes belong into leaves, so that controllers can be handed on.
middle() {
  local folder
  while read -r folder; do
    [ ! -e "$folder/cgroup.type" ] || { mkdir "$folder/init"; echo $$ >"$folder/init/cgroup.procs"; }
  done <"$WORK/cgroups"
  exec unshare --net --uts --mount --propagation private --pid --fork --kill-child --mount-proc bash "$0" --inner "$WORK"
}

network() {
  # a new namespace has it as the machine does
  for switch in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 0 >/proc/sys/net/$switch; done
  ip link set lo up
  # (not every kernel has dummy devices)
  ip link add eth0 type dummy 2>/dev/null || { ip link add eth0 type veth peer name uplink; ip link set uplink up; }
  ip addr add $HOST_ADDRESS/24 dev eth0; ip link set eth0 up
  ip route add default via 198.51.100.1
  hostname docker-host
}

# The same layout of hierarchies as outside, each showing our own folder as its root.
cgroup_mounts() {
  local line controllers folder
  mount -t sysfs sysfs /sys
  if [ "$1" = v2 ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    for line in $(cat /sys/fs/cgroup/cgroup.controllers); do echo "+$line" >/sys/fs/cgroup/cgroup.subtree_control; done
    return
  fi
  mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
  while read -r line; do
    IFS=: read -r _ controllers _ <<<"$line"
    folder=/sys/fs/cgroup/${controllers#name=}
    case $controllers in
      "") [ "$1" = v1-only ] || { mkdir /sys/fs/cgroup/unified; mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified; } ;;
      name=*) mkdir "$folder"; mount -t cgroup -o "none,$controllers" cgroup "$folder" ;;
      *) mkdir "$folder"; mount -t cgroup -o "$controllers" cgroup "$folder" ;;
    esac
  done </proc/self/cgroup
}

files() {
  local scratch; scratch=$(mktemp -d /tmp/wherry-etc.XXXXXX)
  mount -t tmpfs tmpfs "$scratch"
  mkdir "$scratch/up" "$scratch/work"
  mount -t overlay overlay -o "lowerdir=/etc,upperdir=$scratch/up,workdir=$scratch/work" /etc
  umount -l "$scratch"; rmdir "$scratch"
  mount -t tmpfs -o mode=755 tmpfs /run; mkdir /run/lock
  rm -rf /etc/resolv.conf /etc/docker /etc/criu
  echo "nameserver $HOST_ADDRESS" >/etc/resolv.conf
  printf '127.0.0.1 localhost\n%s docker-host\n' $HOST_ADDRESS >/etc/hosts
}

inner() {
  local mode=${WHERRY_TEST_CGROUP:-v1}
  [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ] || mode=v2
  network; cgroup_mounts $mode; files
  export WHERRY_TEST_WORK=$WORK
  set +eu
  cd /
  printf '\001%s\n' 0
  while IFS= read -r line; do
    eval "$line"
    printf '\001%s\n' $?
  done
  exit 0
}

case $1 in
  --middle) WORK=$2; middle ;;
  --inner) WORK=$2; inner ;;
  *) WORK=$1; outer ;;
esac
