mkdir -p files/sub; echo x >files/plain; echo y >files/run; echo r >files/ro; echo n >files/sub/none; echo z >files/suid
chmod 755 files/run; chmod 444 files/ro; chmod 600 files/sub/none; chmod 1770 files/sub; chmod 6755 files/suid
