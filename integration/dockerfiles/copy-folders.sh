mkdir -p empty/nothing one/hollow
