"""Hysteresis in value and in time."""

import random

import pytest

from cloud.alerts.states import Observation, Seen, Standing, retry_after_s, seen_of, silences, step


def _walk(seen: list[Seen], *, for_s: float = 20, clear_s: float = 20) -> list[str]:
    standing = Standing()
    states: list[str] = []
    for number, one in enumerate(seen):
        observation = Observation("box-1", one, f"seen {number}", float(number))
        standing = step(standing, observation, number * 10_000, for_s=for_s, clear_s=clear_s)
        states.append(standing.state)
    return states


def test_breach_must_hold_before_it_fires_and_be_clear_before_it_is_over() -> None:
    walked = _walk(["breach", "breach", "breach", "clear", "between", "clear", "clear", "clear", "breach"])
    assert walked == ["pending", "pending", *["firing"] * 5, "resolved", "pending"]


def test_breach_that_does_not_hold_is_forgotten() -> None:
    assert _walk(["breach", "between", "breach", "clear"]) == ["pending", "none", "pending", "none"]


def test_what_is_not_known_neither_begins_nor_ends_an_alert() -> None:
    assert _walk(["unknown", "breach", "unknown"], for_s=0, clear_s=0) == ["none", "firing", "firing"]


def test_value_at_the_limit_does_not_flap() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    values = [200 + rng.uniform(-20, 20) for _ in range(300)]
    with_gap = _walk([seen_of(v, above=200, below=None, clear=150) for v in values], for_s=0, clear_s=0)
    without = _walk([seen_of(v, above=200, below=None, clear=None) for v in values], for_s=0, clear_s=0)
    assert with_gap.count("resolved") == 0
    assert without.count("resolved") > 50


@pytest.mark.parametrize(
    ("value", "limits", "seen"),
    [
        (5.0, (4.0, None, 3.0), "breach"),
        (3.5, (4.0, None, 3.0), "between"),
        (3.0, (4.0, None, 3.0), "clear"),
        (0.8, (None, 0.9, 0.95), "breach"),
        (0.92, (None, 0.9, 0.95), "between"),
        (0.95, (None, 0.9, None), "clear"),
        (None, (4.0, None, None), "unknown"),
    ],
)
def test_value_against_two_limits(
    value: float | None, limits: tuple[float | None, float | None, float | None], seen: Seen
) -> None:
    above, below, clear = limits
    assert seen_of(value, above=above, below=below, clear=clear) == seen


def test_waits_between_attempts_grow_to_an_hour() -> None:
    assert [retry_after_s(n) for n in (1, 2, 3, 15)] == [10, 20, 40, 3600]


def test_silence_covers_what_it_names() -> None:
    assert silences("", "", of_rule="stale", of_subject="box-1")
    assert silences("stale", "", of_rule="stale", of_subject="box-1")
    assert not silences("stale", "box-2", of_rule="stale", of_subject="box-1")
