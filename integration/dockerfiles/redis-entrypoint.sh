# images: redis
