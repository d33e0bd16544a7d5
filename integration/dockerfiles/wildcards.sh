mkdir -p src/x src/y src2; for n in a.txt b.txt c.md a1 b1 a2 c1 src/m.c src/m.h src/n.c src/x/deep.c src/y/deep.c src2/z.c package.json 'esc*ped' escaaped; do echo "$n" >"$n"; done
