"""What the tests of the device share."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Tests marked `anyio` run in asyncio, which is what the device uses."""
    return "asyncio"
