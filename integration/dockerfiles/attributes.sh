mkdir files; echo a >files/attr; echo c >files/cap
setfattr -n user.note -v 'some text' files/attr 2>/dev/null || true
setfattr -n user.folder -v x files 2>/dev/null || true
setfattr -n security.capability -v 0sAQAAAgAEAAAAAAAAAAAAAAAAAAA= files/cap
