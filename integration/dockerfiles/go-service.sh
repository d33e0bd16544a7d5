# arguments: --build-arg VERSION=1.4.2
true
