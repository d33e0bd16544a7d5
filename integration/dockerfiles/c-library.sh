mkdir lib
printf '#!/bin/sh\necho "PREFIX=${1#--prefix=}" >config\n' >lib/configure
cat >lib/make.sh <<'END'
#!/bin/sh
set -e
. ./config
case $1 in
all) for i in a b; do echo "object $i" >$i.o; done; cat a.o b.o >libx.so.1.0; printf '#!/bin/sh\necho tool\n' >tool ;;
install) d=${2#DESTDIR=}$PREFIX; mkdir -p $d/lib $d/bin; cp libx.so.1.0 $d/lib; ln -s libx.so.1.0 $d/lib/libx.so.1; ln -s libx.so.1 $d/lib/libx.so
  cp tool $d/bin; chmod 755 $d/bin/tool; ln $d/bin/tool $d/bin/tool-1.0 ;;
esac
END
chmod +x lib/configure lib/make.sh
tar --sort=name --owner=0 --group=0 --mtime=@1700000000 -czf lib.tar.gz lib
rm -r lib
