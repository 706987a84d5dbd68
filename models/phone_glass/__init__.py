"""Back glass of phones, drawn by a generator of our own: good, or with one of five defects.

Rules:
- The generator needs numpy and OpenCV only; training needs torch and the export extra.
"""
