"""Hashes of passwords: made with the effort that the standard asks for, whether there is such a name or not."""

import statistics
import time
from collections.abc import Callable, Iterator

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.profiles import RFC_9106_LOW_MEMORY

from cloud import passwords
from cloud.passwords import hash_password, verify_password

RIGHT, WRONG = "correct horse battery", "correct horse batterz"


@pytest.fixture(autouse=True)
def _real_effort(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher.from_parameters(passwords.EFFORT))
    passwords._nobody.cache_clear()
    yield
    passwords._nobody.cache_clear()


def test_hash_is_made_as_rfc_9106_says_for_little_memory() -> None:
    kept = hash_password(RIGHT)
    assert extract_parameters(kept) == RFC_9106_LOW_MEMORY
    assert verify_password(kept, RIGHT) and not verify_password(kept, WRONG)


def test_name_that_does_not_exist_costs_as_much_as_a_wrong_password() -> None:
    kept = hash_password(RIGHT)
    verify_password(None, WRONG)
    known = _cost_ms(lambda: verify_password(kept, WRONG))
    unknown = _cost_ms(lambda: verify_password(None, WRONG))
    assert known / 2 < unknown < known * 2
    assert not verify_password(None, RIGHT)


def _cost_ms(call: Callable[[], object]) -> float:
    """Return the processor time of a call, all its threads together."""
    times = []
    for _ in range(5):
        before = time.process_time()
        call()
        times.append((time.process_time() - before) * 1000)
    return statistics.median(times)
