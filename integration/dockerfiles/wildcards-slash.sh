mkdir -p src1 src2; echo 1 >src1/a; echo 2 >src2/b
