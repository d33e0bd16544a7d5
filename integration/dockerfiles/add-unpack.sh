# doors: buildkit
mkdir a; echo 1 >a/1; tar --sort=name --owner=0 --group=0 --mtime=@1700000000 -cf a.tar a; rm -r a
