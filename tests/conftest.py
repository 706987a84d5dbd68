"""What all tests share: where their files lie, and what the collector of garbage need not look at again and again."""

import gc
import os
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 * 2**30
"""A run of the suite never holds a quarter of it at a time."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests' files in memory where there is room: most wait for the disk, and none of them cuts its power."""
    if config.getoption("basetemp") is None and _room_bytes() >= ROOM_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Set aside what stays (modules, thousands of tests): each full collection would go through all of it."""
    gc.collect()
    gc.freeze()


def _room_bytes() -> int:
    """Return how much more the memory disk and the memory itself can hold."""
    try:
        disk, words = os.statvfs(MEMORY), Path("/proc/meminfo").read_text().split()
    except OSError:
        return 0
    return min(disk.f_bavail * disk.f_frsize, int(words[words.index("MemAvailable:") + 1]) * 1024 // 2)
