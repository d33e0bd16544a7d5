# images: python
# doors: buildkit
