"""What runs on a device besides the daemon; the standard library only, because it starts before everything else."""
