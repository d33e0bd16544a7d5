mkdir ünï; echo 1 >'with space.txt'; printf '2\n' >$'tab\tx'; echo 3 >ünï/cödé; echo 4 >'[brackets]'; echo 5 >-dash; echo 6 >--
