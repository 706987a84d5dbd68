"""Maintenance windows: hours on a wall, on days of the week, in a time zone, also when summer time comes and goes."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cloud.windows import DAYS, Window

HOUR_MS = 3_600_000


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NIGHT = Window.model_validate(
    {"start": "22:00", "end": "04:00", "zone": "Europe/Berlin", "days": ["mon", "tue", "wed", "thu"]}
)


@pytest.mark.parametrize(
    ("moment", "until", "following"),
    [
        ("2026-01-05T20:59", None, "2026-01-05T21:00"),  # Monday, 21:59 in Berlin
        ("2026-01-05T21:00", "2026-01-06T03:00", "2026-01-06T21:00"),
        ("2026-01-06T02:59", "2026-01-06T03:00", "2026-01-06T21:00"),  # the night that began on Monday
        ("2026-01-06T03:00", None, "2026-01-06T21:00"),
        ("2026-01-09T02:00", "2026-01-09T03:00", "2026-01-12T21:00"),  # Friday early: Thursday's night, then Monday
        ("2026-01-10T21:30", None, "2026-01-12T21:00"),
        ("2026-07-06T20:00", "2026-07-07T02:00", "2026-07-07T20:00"),  # summer time
    ],
)
def test_a_night_begins_on_its_days_by_the_clock_of_its_place(moment: str, until: str | None, following: str) -> None:
    assert NIGHT.until_ms(at(moment)) == (at(until) if until else None)
    assert NIGHT.next_ms(at(moment)) == at(following)


def test_a_night_is_an_hour_shorter_when_summer_time_begins_and_longer_when_it_ends() -> None:
    night = Window(start="22:00", end="04:00", zone="Europe/Berlin")
    assert night.until_ms(at("2026-03-28T22:00")) == at("2026-03-29T02:00")
    assert night.until_ms(at("2026-10-24T21:00")) == at("2026-10-25T03:00")


def test_hours_that_the_clock_skips_still_come() -> None:
    skipped = Window(start="02:10", end="02:50", zone="Europe/Berlin")
    begins = skipped.next_ms(at("2026-03-28T12:00"))
    assert (skipped.until_ms(begins) or 0) - begins == 40 * 60_000


@given(
    days=st.sets(st.sampled_from(DAYS), min_size=1),
    hours=st.lists(st.integers(0, 23), min_size=2, max_size=2, unique=True),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Chatham", "Asia/Kolkata"]),
    now_ms=st.integers(at("2026-01-01"), at("2028-01-01")),
)
def test_a_window_always_comes_within_eight_days_and_is_open_when_it_begins(
    days: set[str], hours: list[int], zone: str, now_ms: int
) -> None:
    ends = {"start": f"{hours[0]:02}:00", "end": f"{hours[1]:02}:00"}
    window = Window.model_validate({**ends, "zone": zone, "days": sorted(days)})
    begins = window.next_ms(now_ms)
    assert now_ms < begins <= now_ms + 8 * 24 * HOUR_MS
    until_ms = window.until_ms(begins)
    assert until_ms is not None
    assert 0 < until_ms - begins <= 25 * HOUR_MS
    assert window.until_ms(begins - 1) is None or window.until_ms(begins - 1) == begins


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"start": "24:00", "end": "04:00"}, "start"),
        ({"start": "4", "end": "05:00"}, "start"),
        ({"start": "04:00", "end": "04:00"}, "same"),
        ({"start": "04:00", "end": "05:00", "zone": "Mars/Olympus"}, "no time zone"),
        ({"start": "04:00", "end": "05:00", "zone": "../etc/passwd"}, "no time zone"),
        ({"start": "04:00", "end": "05:00", "days": []}, "days"),
        ({"start": "04:00", "end": "05:00", "days": ["monday"]}, "days"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Window.model_validate(fields)


def test_a_window_says_when_it_is_in_words() -> None:
    assert NIGHT.words() == "mon, tue, wed, thu 22:00 to 04:00 Europe/Berlin"
    assert Window(start="01:00", end="02:00").words() == "daily 01:00 to 02:00 UTC"
    assert NIGHT.clock_words(at("2026-01-05T21:00")) == "Mon 05 Jan 22:00 Europe/Berlin"
