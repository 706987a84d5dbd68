"""What `lineside-edge` does, one file a command; `edge.__main__` only reads the arguments."""
