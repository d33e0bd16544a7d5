# arguments: --target tow
