echo x >'a`txt'
