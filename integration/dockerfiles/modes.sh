# doors: buildkit
mkdir -p files/sub; echo x >files/plain; echo y >files/run; echo z >files/suid; echo r >files/ro; echo n >files/sub/none
chmod 755 files/run; chmod 4755 files/suid; chmod 444 files/ro; chmod 000 files/sub/none; chmod 1770 files/sub; chmod 2711 files
