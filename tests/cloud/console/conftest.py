"""A plant of its own for each test, with a clock that stands still."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clocks import HeldClock
from tests.cloud.console.plant import Plant


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
def plant(tmp_path: Path, clock: HeldClock) -> Iterator[Plant]:
    made = Plant(tmp_path, clock)
    yield made
    made.close()
