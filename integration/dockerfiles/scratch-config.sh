# doors: buildkit
# compared: exported
# note: dockerd builds it, but `docker save` refuses an image without layers ("empty export - not implemented"); so its configuration is compared by `docker image inspect` and `docker history`, its files as BuildKit exports them.
