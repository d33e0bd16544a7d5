echo 4 >'[brackets]'; echo b >b
