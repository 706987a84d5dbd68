"""What goes onto a device besides the program: configuration files to begin with."""
