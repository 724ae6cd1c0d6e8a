"""Which models there are and how they get onto this host's disk; nothing here loads or runs one."""
