#!/bin/bash
# Is the image store of an idle engine whole? Says what is wrong, if anything, and ends with 1.
#   DOCKER_HOST=… check-store.sh DATA_ROOT
# Every image is saved and what comes out compared with its digests, and each of its layers' tars with the layer's
# folder: names, contents, types, owners, modes, times. Then the folders: no layer or document without an image, nothing
# unfinished. Containers, if any, must be of images that are there.
set -euo pipefail
data=$1
scratch=$(mktemp -d /var/tmp/check-store.XXXXXX); trap 'rm -rf "$scratch"' EXIT
fail() { echo "check-store: $*" >&2; exit 1; }
digest() { echo "sha256:$(sha256sum <"$1" | cut -d' ' -f1)"; }

# A layer's tar $1 against its folder $2.
compare() {
  tar --compare --numeric-owner --exclude='.wh.*' -f "$1" -C "$2" >&2 || fail "$2 is not what its tar says"
  diff <(tar --quoting-style=literal -tf "$1" | sed -e 's|^\./||' -e 's|/$||' -e '/\.wh\.\.wh\./d' -e 's|\.wh\.||' -e '/^$/d' | sort -u) \
    <(find "$2" -mindepth 1 -printf '%P\n' | sort) >&2 || fail "$2 has other files than its tar"
}

images=$(docker images -aq --no-trunc | sort -u)
: >"$scratch/layers"
for id in $images; do
  rm -rf "$scratch/image"; mkdir "$scratch/image"
  docker save "$id" | tar -x -C "$scratch/image" || fail "$id cannot be saved"
  config=$scratch/image/$(jq -r '.[0].Config' "$scratch/image/manifest.json")
  [ "$(digest "$config")" = "$id" ] || fail "the document of $id is not its own"
  jq -r '.rootfs.diff_ids[]' "$config" >"$scratch/wanted"
  jq -r '.[0].Layers[]' "$scratch/image/manifest.json" | while read -r layer; do digest "$scratch/image/$layer"; done >"$scratch/found"
  diff "$scratch/wanted" "$scratch/found" >&2 || fail "$id has other layers than it says"
  jq -r '.[0].Layers[]' "$scratch/image/manifest.json" | while read -r layer; do
    hex=$(digest "$scratch/image/$layer"); hex=${hex#sha256:}
    grep -qx "$hex" "$scratch/layers" || compare "$scratch/image/$layer" "$data/overlay2/$hex/diff"
    echo "$hex" >>"$scratch/layers"
  done
done

docker ps -aq --no-trunc >"$scratch/containers"
ls "$data/overlay2" | grep -vxFf "$scratch/containers" | sort >"$scratch/there" || true
sort -u "$scratch/layers" | diff - "$scratch/there" >&2 || fail "layers in images (<) and in overlay2 (>) differ"
diff <(echo "$images" | sed -e 's/^sha256://' -e '/^$/d') <(ls "$data/image/configs" | sort) >&2 || fail "images (<) and documents (>) differ"
diff <(echo "$images" | sed '/^$/d') <(jq -r '.images | keys[]' "$data/image/index.json" | sort) >&2 || fail "images (<) and the index (>) differ"
[ -z "$(ls -A "$data/overlay2/.staging")" ] || fail "something unfinished is left in .staging"
for _ in $(seq 600); do
  [ -n "$(ls -A "$data/overlay2/.trash")" ] || exit 0
  sleep .1
done
fail "the trash is not emptied"
