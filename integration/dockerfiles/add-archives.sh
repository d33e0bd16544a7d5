mkdir -p a/sub; echo one >a/one; echo two >a/sub/two; ln -s one a/link; ln a/one a/hard; chmod 750 a/sub; chmod 4711 a/sub/two; touch -d @1600000000 a/one
for z in '' z j; do
  case $z in z) e=.gz;; j) e=.bz2;; *) e=;; esac
  tar --sort=name --owner=12 --group=34 --mtime=@1700000000 -c${z}f a.tar$e a
done
rm -r a; echo plain >plain.txt; gzip -nk plain.txt; mv plain.txt.gz plain.gz; echo 'no archive' >fake.tar; mkdir folder; cp a.tar folder/
