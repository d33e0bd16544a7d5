# doors: buildkit
# arguments: --target FINAL
