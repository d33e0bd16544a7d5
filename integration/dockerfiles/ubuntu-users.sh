# images: ubuntu-18.04
