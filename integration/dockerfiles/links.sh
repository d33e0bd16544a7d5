mkdir -p dir/sub
echo file >file.txt; echo inner >dir/sub/x
ln -s file.txt link.txt; ln -s sub dir/inner-link; ln -s /nothing/here dir/dangling; ln -s ../file.txt dir/up; ln -s dir dir-link
