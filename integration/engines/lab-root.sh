# Sourced by the reference engines: makes the lab's root (../shared/lab, or $LAB) this process's, in a mount namespace of its
# own, since its programs come from a newer Debian. The folder of the test is at the same place in it.
LAB=${LAB:-/var/lib/wherry-lab} LAB_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ROOT=$LAB/root
[ -x "$ROOT/usr/sbin/dockerd" ] || { echo "$0: no reference engines in $ROOT: run the lab's setup" >&2; exit 1; }
if [ "${1:-}" != --inner ]; then exec unshare --mount --propagation private bash "$0" --inner "$@"; fi
shift
work=${WHERRY_TEST_WORK:?is set by tests/host.sh}
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"; mount -t sysfs sysfs "$ROOT/sys"; mount --rbind /sys/fs/cgroup "$ROOT/sys/fs/cgroup"
# crun refuses a v2 hierarchy beside v1's
! mountpoint -q "$ROOT/sys/fs/cgroup/unified" || umount "$ROOT/sys/fs/cgroup/unified"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs -o mode=755 tmpfs "$ROOT/run"; mkdir "$ROOT/run/lock"
mount -t tmpfs -o mode=1777 tmpfs "$ROOT/var/tmp"; mkdir -p "$ROOT$work"; mount --bind "$work" "$ROOT$work"
mount -t tmpfs -o mode=1777 tmpfs "$ROOT/tmp"
# git and ssh, which contexts in repositories need and the lab has not: the machine's own, with their libraries
if [ ! -e "$ROOT/usr/bin/git" ] && programs=$(git --exec-path 2>/dev/null); then
  mount -t tmpfs -o mode=755 tmpfs "$ROOT/usr/local"; mkdir -p "$ROOT"/usr/local/{bin,lib,libexec/git-core}
  mount --bind "$programs" "$ROOT/usr/local/libexec/git-core"
  cp -L "$(command -v ssh)" "$ROOT/usr/local/libexec/ssh"
  # its C library is newer, and does for all
  ldd "$programs/git-remote-http" "$ROOT/usr/local/libexec/ssh" | awk '$3 ~ "^/" && $1 !~ /^lib(c|m|dl|rt|pthread|resolv)\.so/ { print $3 }' |
    sort -u | xargs cp -Lt "$ROOT/usr/local/lib"
  for program in git-core/git ssh; do
    printf '#!/bin/sh\nLD_LIBRARY_PATH=/usr/local/lib GIT_EXEC_PATH=/usr/local/libexec/git-core exec /usr/local/libexec/%s "$@"\n' \
      $program >"$ROOT/usr/local/bin/${program##*/}"
  done
  chmod 755 "$ROOT"/usr/local/bin/*
fi
mount --bind /etc/resolv.conf "$ROOT/etc/resolv.conf"; mount --bind /etc/hosts "$ROOT/etc/hosts"
cd "$ROOT"; mkdir -p .old; pivot_root . .old; umount -l /.old
