"""Proves an image without hardware: QEMU (qemu) beside a control plane (plant), told as a story with times (boot)."""
