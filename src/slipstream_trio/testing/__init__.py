"""What tests of Phoenix clients are made of: a Phoenix-compatible server, to begin with."""
