"""What the fault tests share."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.plant import Cloud


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
