# images: node
