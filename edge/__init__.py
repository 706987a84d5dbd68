"""Lineside on the device: sources, pipeline, runtimes, actuators, store, link and model slots."""

import os

# OpenCV reads this once, when it is loaded: a header that claims more pixels than any camera has is refused
# there too, should it get past `imaging.MAX_PIXELS`, which it equals.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "50000000")

# ONNX Runtime reads this once, when it is loaded: without it every process that judges keeps a database of its own use
# on the disk, against flash and privacy, and would send it to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
