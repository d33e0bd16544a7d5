#!/bin/bash
# Writes a docker-archive of three layers with files of many kinds, deletions and replacements, other bytes each time.
#   crash-image.sh OUT.tar NAME:TAG [MEGABYTES]     MEGABYTES: of random bytes in it (default 12)
set -euo pipefail
out=$(readlink -f "$1") name=$2 megabytes=${3:-12}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/crash-image.XXXXXX"); trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{a/etc,a/data,a/small,b/small,b/etc,c/data,c/etc,image}

head -c $((megabytes * 700000)) /dev/urandom >"$work/a/data/random"
head -c 3000000 /dev/zero | tr '\0' 'x' >"$work/a/data/text"
for i in $(seq 400); do echo "file $i of $RANDOM" >"$work/a/small/$i"; done
ln "$work/a/data/text" "$work/a/data/linked"; ln -s ../data/text "$work/a/etc/link"; mkfifo "$work/a/etc/fifo"
chmod 4755 "$work/a/small/1"; chown 1000:1001 "$work/a/small/2"; : >"$work/a/etc/empty"
truncate -s 5000000 "$work/a/data/sparse"; echo end >>"$work/a/data/sparse"
for i in $(seq 200); do echo "another $i" >"$work/b/small/$i"; done
for i in $(seq 300 320); do : >"$work/b/small/.wh.$i"; done
: >"$work/b/etc/.wh.link"
head -c $((megabytes * 300000)) /dev/urandom >"$work/c/data/more"; : >"$work/c/etc/.wh..wh..opq"; echo new >"$work/c/etc/new"

layers= ids=
for l in a b c; do
  tar -C "$work/$l" --sparse --sort=name --numeric-owner -cf "$work/image/$l.tar" $(ls "$work/$l")
  ids="$ids,\"sha256:$(sha256sum <"$work/image/$l.tar" | cut -d' ' -f1)\"" layers="$layers,\"$l.tar\""
done
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
printf '{"architecture":"%s","os":"linux","config":{"Cmd":["true"]},"rootfs":{"type":"layers","diff_ids":[%s]}}' "$arch" "${ids#,}" >"$work/image/config.json"
printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":[%s]}]' "$name" "${layers#,}" >"$work/image/manifest.json"
tar -C "$work/image" -cf "$out" a.tar b.tar c.tar config.json manifest.json
