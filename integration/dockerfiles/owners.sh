# doors: buildkit
echo f >f; mkdir -p tree/sub; echo g >tree/sub/g; ln -s sub/g tree/link; chown -R 1111:2222 tree f
