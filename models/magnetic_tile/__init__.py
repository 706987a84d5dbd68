"""Magnetic tiles, good or defective: one fully convolutional network on real photographs, split by part."""
