"""Says which form of a test runs: the short one in every run of the suite, the long one where `LINESIDE_LONG` is set.

Rules:
- Both forms take the same way and can fail for the same reasons; the long one draws more moments and sees slower leaks.
- Which forms there are stands in the docstring of the test.
"""

import os

LONG = "LINESIDE_LONG" in os.environ


def rounds(short: int, long: int) -> int:
    """Return how often a test does what it repeats."""
    return long if LONG else short
