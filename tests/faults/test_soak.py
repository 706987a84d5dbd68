"""The short form of the soak: half a minute of two stations under a handful of drawn faults."""

import random
from pathlib import Path

import pytest

from tests.faults.soak import drawn, soak
from tests.faults.soakfaults import FAULTS
from tests.long import LONG

SHORT_MINUTES, SHORT_FAULTS = (2 / 3, 6) if LONG else (0.4, 4)


@pytest.mark.slow
def test_two_stations_under_drawn_faults_lose_no_decision_and_keep_their_memory(
    tmp_path: Path, rng: random.Random
) -> None:
    outcome = soak(tmp_path, minutes=SHORT_MINUTES, faults=SHORT_FAULTS, seed=rng.randrange(2**32), say=print)
    print(outcome)
    assert outcome.problems == []
    assert len(outcome.faults) == SHORT_FAULTS


def test_faults_drawn_with_one_seed_are_the_same_and_end_the_daemon_only_in_the_first_half() -> None:
    for seed in range(50):
        faults = drawn(FAULTS, 20, random.Random(seed))
        assert faults == drawn(FAULTS, 20, random.Random(seed))
        assert len(set(faults)) == 20
        assert not any(fault.ends_daemon for fault in faults[10:])
