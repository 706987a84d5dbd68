"""What the fault tests share."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.plant import Cloud

LONGEST_S = 420


@pytest.fixture
def rng() -> random.Random:
    """Randomness whose seed is printed, so that a failure can be had again."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    """A control plane, running."""
    with Cloud(tmp_path / "cloud") as started:
        yield started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every fault test time to starve on a busy machine: each waits for events with deadlines of its own."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LONGEST_S))
