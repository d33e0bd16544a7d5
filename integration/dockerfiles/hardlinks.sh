mkdir tree; echo data >tree/a; ln tree/a tree/b
