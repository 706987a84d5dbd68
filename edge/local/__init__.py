"""The page at the device: what it sees and decides, and the deferred parts to answer on the spot."""
