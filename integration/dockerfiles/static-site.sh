# arguments: --label version=2.0 --label extra=x
