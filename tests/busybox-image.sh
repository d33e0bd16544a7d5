#!/bin/bash
# Writes an image of Debian's busybox-static as a docker-archive, for `docker load`.
#   busybox-image.sh OUT.tar [NAME:TAG [CONFIG [FOLDER]]]     CONFIG: JSON, the image's Config (default {"Cmd":["sh"]});
#                                                             FOLDER is laid over the root file system
set -euo pipefail
out=$(readlink -f "$1") name=${2:-busybox:latest} config=${3:-} folder=${4:-}
[ -n "$config" ] || config='{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["sh"]}'
[ -x /bin/busybox ] || { echo "$0: no /bin/busybox: run \`make setup\` (package busybox-static)" >&2; exit 1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/busybox-image.XXXXXX"); trap 'rm -rf "$work"' EXIT

root=$work/root
mkdir -p "$root"/{bin,etc,dev,proc,sys,root,tmp,var/www,usr/bin,home}
chmod 1777 "$root/tmp"; chmod 700 "$root/root"
cp /bin/busybox "$root/bin/busybox"
/bin/busybox --install -s "$root/bin"
ln -s /bin/busybox "$root/usr/bin/env"
[ -e "$root/usr/bin/busybox" ] || ln -s /bin/busybox "$root/usr/bin/busybox"   # where --install points to, where /bin is a link
printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nvideo:x:44:www-data\nnobody:x:65534:\n' >"$root/etc/group"
: >"$root/etc/hostname"
[ -z "$folder" ] || cp -a "$folder/." "$root/"
tar -C "$root" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@1700000000 -cf "$work/layer.tar" .

layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
printf '{"architecture":"%s","os":"linux","created":"2023-11-14T22:13:20Z","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"2023-11-14T22:13:20Z","created_by":"busybox-image.sh"}]}' \
  "$arch" "$config" "$layer" >"$work/config.json"
id=$(sha256sum "$work/config.json" | cut -d' ' -f1)
mv "$work/config.json" "$work/$id.json"
mkdir "$work/$layer"; mv "$work/layer.tar" "$work/$layer/layer.tar"
printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["%s/layer.tar"]}]' "$id" "$name" "$layer" >"$work/manifest.json"
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@1700000000 -cf "$out" manifest.json "$id.json" "$layer/layer.tar"
