"""Lineside on the device: sources, pipeline, runtimes, actuators, store, link and model slots."""

import os

# OpenCV reads this once, when it is loaded: a header that claims more pixels than any camera has is refused
# there too, should it get past `imaging.MAX_PIXELS`, which it equals.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "50000000")
