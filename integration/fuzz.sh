#!/bin/bash
# make fuzz: runs the fuzz targets of integration/fuzz one after the other, each for SECONDS (600), and keeps the figures in
# integration/results/fuzz.md. TARGETS names some of them. As root: layers have devices and owners.
set -euo pipefail
cd "$(dirname "$0")/.."
SECONDS_EACH=${1:-600}
TARGETS=${TARGETS:-config mount_options seccomp layer manifests references dockerfile dns netd}
RESULTS=integration/results/fuzz.md
export RUSTC_BOOTSTRAP=1 # the sanitizers' flags are for nightly compilers only
command -v cargo-fuzz >/dev/null || [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo-fuzz" ] || cargo install --locked cargo-fuzz
exec 9>/run/lock/wherry-fuzz; flock -n 9 || { echo "fuzz: another run is under way, and they share /dev/shm" >&2; exit 1; }
scratch=$(mktemp -d); trap 'rm -rf "$scratch" /dev/shm/wherry-fuzz-*' EXIT

layers() { # seeds that tar makes: folders, links, a sparse file, whiteouts, long names, devices, attributes, in three formats
  local from=$scratch/files to=$1
  mkdir -p "$from/a/b" "$to"; cd "$from"
  echo x >a/f; ln -f a/f a/hard; ln -sf ../../etc/passwd a/b/link; mkfifo a/p; mknod a/c c 1 3; mknod a/d b 7 0
  truncate -s 1M a/sparse; echo y | dd of=a/sparse bs=1 seek=500000 conv=notrunc status=none
  : >.wh.gone; : >a/.wh..wh..opq; : >"a/$(printf 'n%.0s' {1..150})"; setfattr -n user.x -v y a/f 2>/dev/null || true
  for format in gnu pax ustar; do tar --sparse --xattrs --format=$format -cf "$to/$format.tar" . 2>/dev/null || tar --format=$format -cf "$to/$format.tar" . 2>/dev/null || true; done
  gzip -k -f "$to/pax.tar"; zstd -q -f "$to/pax.tar" 2>/dev/null || true
  cd - >/dev/null
}
documents() { # seeds for manifests: the first byte says which document
  local to=$1 hex
  hex=$(printf '%064d' 7); mkdir -p "$to"
  printf '\x01[{"Config":"config.json","RepoTags":["a:b"],"Layers":["l.tar"]}]' >"$to/docker"
  printf '\x02{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"Cmd":["x"],"User":"1:2"},"rootfs":{"type":"layers","diff_ids":[]},"history":[{"created":"2026-01-01T00:00:00Z","empty_layer":true}]}' >"$to/config"
  printf '\x03{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":2,"platform":{"architecture":"amd64","os":"linux"},"annotations":{"io.containerd.image.name":"docker.io/library/a:b"}}]}' "$hex" >"$to/index"
  printf '\x04{"schemaVersion":2,"config":{"digest":"sha256:%s","size":1},"layers":[]}' "$hex" >"$to/manifest"
  tail -c +2 "$to/index" | sed '1s/^/\x05/' >"$to/registry"; tail -c +2 "$to/config" | sed '1s/^/\x06/' >"$to/document"; printf '\x07linux/arm64/v8' >"$to/platform"
}

for target in $TARGETS; do cargo fuzz build --fuzz-dir integration/fuzz "$target"; done
failed=0
for target in $TARGETS; do
  seeds=$scratch/seeds-$target; corpus=integration/fuzz/corpus/$target; log=$scratch/$target.log; artifacts=integration/fuzz/artifacts/$target
  mkdir -p "$seeds" "$corpus"
  ! [ -d "integration/fuzz/seeds/$target" ] || cp integration/fuzz/seeds/"$target"/* "$seeds"
  case $target in layer) layers "$seeds" ;; manifests) documents "$seeds" ;; esac
  limits=(-max_total_time="$SECONDS_EACH" -rss_limit_mb=1024 -malloc_limit_mb=256 -timeout=10 -print_final_stats=1)
  # threads of the store that are just ending look like leaks
  case $target in layer) limits+=(-max_len=65536 -detect_leaks=0) ;; dns) limits+=(-max_len=2048) ;; netd) limits+=(-max_len=16384) ;; config) limits+=(-max_len=16384 -dict=integration/fuzz/seeds/config.dict) ;; esac
  outcome=clean
  nice -n 15 cargo fuzz run --fuzz-dir integration/fuzz "$target" "$corpus" "$seeds" -- "${limits[@]}" >"$log" 2>&1 || { outcome="**failed**"; failed=1; }
  [ "$outcome" = clean ] || { grep -aE 'panicked|ERROR|SUMMARY|Test unit' -A2 "$log" | head -20; ls "$artifacts"; }
  runs=$(grep -a 'stat::number_of_executed_units' "$log" | awk '{print $2}' | tail -1)
  peak=$(grep -a 'stat::peak_rss_mb' "$log" | awk '{print $2}' | tail -1)
  coverage=$(grep -aoE 'cov: [0-9]+' "$log" | tail -1 | cut -d' ' -f2)
  line="| $target | $(date -u +%F) | $(git rev-parse --short HEAD) | $SECONDS_EACH | ${runs:--} | ${coverage:--} | $(find "$corpus" -type f | wc -l) | ${peak:--} | $outcome |"
  echo "$line"
  awk -v target="| $target |" -v line="$line" 'index($0, target) != 1 { print } /^\| --- / { print line }' "$RESULTS" >"$scratch/results"
  cp "$scratch/results" "$RESULTS"
done
exit $failed
