"""What all tests share: where their files lie, and what the collector of garbage need not look at again and again."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
import pytest

hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")
"""No bound on the time of an example: on a machine that does other things, too, it fails what is right."""

ROOT = Path(__file__).parent
LONGEST = (
    "e2e/test_demo.py",
    "faults/test_kill_cloud.py",
    "faults/test_bundle_breach.py",
    "export/test_fit.py",
    "e2e/test_phone.py",
    "faults/test_soak.py",
    "faults/test_swaps.py",
    "faults/test_kill_device.py",
    "seams/test_recognisers.py",
    "docs/test_readme.py",
    "faults/test_link.py",
    "cloud/console/test_pages.py",
    "browser/test_console.py",
    "packaging/test_wheel.py",
    "benchmarks/test_fleet.py",
    "edge/local/test_bad_states.py",
    "models/ball_screw/test_bundle.py",
    "faults/test_powercut.py",
    "faults/test_powercut_store.py",
    "cloud/test_serve.py",
)
"""Files of half a minute and more, those that take longest first."""
CARDS = {"firmware_configs", "test_cards.py"}
MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 * 2**30
"""A run of the suite never holds a quarter of it at a time."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests' files in memory where there is room: most wait for the disk, and none of them cuts its power."""
    if config.getoption("basetemp") is None and _room_bytes() >= ROOM_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker is left alone with one of them at the end."""
    order = {ROOT / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Set aside what stays (modules, thousands of tests): each full collection would go through all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Where a card is written into a file, that lies on a disk: what lies under /dev is taken for a card itself."""
    if not CARDS & {request.path.name, request.path.parent.name}:
        yield tmp_path
        return
    with TemporaryDirectory(prefix="lineside-") as folder:
        yield Path(folder)


def _room_bytes() -> int:
    """Return how much more the memory disk and the memory itself can hold."""
    try:
        disk, words = os.statvfs(MEMORY), Path("/proc/meminfo").read_text().split()
    except OSError:
        return 0
    return min(disk.f_bavail * disk.f_frsize, int(words[words.index("MemAvailable:") + 1]) * 1024 // 2)
