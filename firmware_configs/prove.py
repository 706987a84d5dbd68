"""Proves an image: boots it in QEMU as a device would be switched on."""
