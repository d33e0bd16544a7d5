echo x >'atxt'
