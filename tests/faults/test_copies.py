"""Three copies on PostgreSQL and Mosquitto, killed at random, for a short while; see `copies.py`."""

import os
import random

import pytest

from benchmarks.servers import Mosquitto, NotInstalledError, Postgres
from tests.faults import copies

LONG = "LINESIDE_LONG" in os.environ
"""Three copies, PostgreSQL and Mosquitto are started, killed and judged: minutes on two cores."""


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="takes minutes: set LINESIDE_LONG")
@pytest.mark.timeout(600)
def test_copies_killed_at_random_lose_nothing_and_conduct_one_at_a_time() -> None:
    for server in (Postgres, Mosquitto):
        try:
            server().close()
        except NotInstalledError as error:
            pytest.skip(str(error))
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    found = copies.run(12, seed=seed, devices=10)
    assert found.problems == []
    assert found.rows > 100
    assert found.terms >= 1
    assert found.steps >= 5
