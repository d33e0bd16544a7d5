# images: python
