"""Numbers in words for people."""

import pytest

from cloud.console import words

NBSP = "\u00a0"


@pytest.mark.parametrize(
    ("span_ms", "said"),
    [
        (None, "–"),
        (0, "0 s"),
        (999, "0 s"),
        (12_400, "12 s"),
        (60_000, "1 min"),
        (7_200_000, "2 h"),
        (90_000_000, "1 d"),
    ],
)
def test_duration_of_any_length_is_said_in_its_largest_whole_unit(span_ms: float | None, said: str) -> None:
    assert words.duration(span_ms) == said.replace(" ", NBSP)


def test_moment_ahead_of_our_clock_is_not_said_to_be_past() -> None:
    assert words.ago(100_000, 40_000) == f"in 1{NBSP}min"
    assert words.ago(100_000, 99_500) == f"0{NBSP}s ago"


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (None, "–"),
        (0, "0 %"),
        (0.0004, "< 0.1 %"),
        (0.063, "6.3 %"),
        (0.25, "25 %"),
        (0.994, "99.4 %"),
        (0.9998, "> 99.9 %"),
        (1, "100 %"),
    ],
)
def test_share_that_is_nearly_none_or_all_is_not_rounded_to_it(share: float | None, said: str) -> None:
    assert words.percent(share) == said.replace(" ", NBSP)


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (0, "0"), (0.00001234, "0.000012"), (0.4567, "0.457"), (1800, "1\u202f800"), (99.6, "99.6")],
)
def test_number_of_any_size_is_said_without_an_exponent(value: float | None, said: str) -> None:
    assert words.number(value) == said


def test_sizes_and_latencies_change_their_unit_with_their_size() -> None:
    assert [words.size(n) for n in (None, 0, 999, 1500, 412_345, 21_400_000_000)] == [
        "–", f"0{NBSP}B", f"999{NBSP}B", f"1.5{NBSP}kB", f"412{NBSP}kB", f"21.4{NBSP}GB",
    ]  # fmt: skip
    assert [words.millis(v) for v in (None, 3.42, 140.2, 12_300)] == [
        "–", f"3.4{NBSP}ms", f"140{NBSP}ms", f"12.3{NBSP}s",
    ]  # fmt: skip


def test_metric_is_named_with_its_unit_apart() -> None:
    names = ("brightness", "level_dbfs", "duration_s", "latency_ms.total", "s")
    assert [words.metric(name) for name in names] == ["brightness", "level, dBFS", "duration, s", "latency", "s"]
