"""What the tests of the control plane share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud.world import World


@pytest.fixture
def anyio_backend() -> str:
    """Tests marked `anyio` run in asyncio, which is what the control plane uses."""
    return "asyncio"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A control plane without keys."""
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def registry_world(tmp_path: Path) -> Iterator[World]:
    """A control plane with keys, ready to take bundles."""
    made = World(tmp_path, with_keys=True)
    yield made
    made.close()
