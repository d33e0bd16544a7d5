# doors: buildkit
# images: python
