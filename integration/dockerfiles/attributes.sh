# doors: buildkit
mkdir files; echo a >files/attr; echo c >files/cap
setfattr -n user.note -v 'some text' files/attr
setfattr -n user.folder -v x files
setfattr -n security.capability -v 0sAQAAAgAEAAAAAAAAAAAAAAAAAAA= files/cap
