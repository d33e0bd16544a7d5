#!/bin/bash
# The files that the corpus downloads: serve.sh FOLDER
set -euo pipefail
cd "$1"
echo "a downloaded file" >file.txt
mkdir -p tree/sub; echo one >tree/one; echo two >tree/sub/two
tar --sort=name --owner=7 --group=8 --mtime=@1700000000 -czf tree.tar.gz tree
rm -r tree
touch -d @1700000000 file.txt tree.tar.gz
