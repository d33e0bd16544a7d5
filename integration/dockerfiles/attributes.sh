# doors: buildkit
# compared: exported
# note: dockerd's overlay2 store keeps `user.*` attributes in a container's files (`getfattr` in UpperDir shows them) and leaves them out of its layers' archives, so of `docker save`; so the files are compared as BuildKit exports them (`docker buildx build -o type=tar`). Our layers keep them, as BuildKit's own do.
mkdir files; echo a >files/attr; echo c >files/cap
setfattr -n user.note -v 'some text' files/attr
setfattr -n user.folder -v x files
setfattr -n security.capability -v 0sAQAAAgAEAAAAAAAAAAAAAAAAAAA= files/cap
