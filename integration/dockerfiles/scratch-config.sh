# doors: buildkit
