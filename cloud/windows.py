"""Maintenance windows: the hours of a place in which devices may be changed; pure.

Rules:
- A window is hours of a wall clock on days of the week, in a time zone of the IANA data base; it is named by the day on
  which it begins, and one that ends before it begins ends on the day after.
- Where summer time begins or ends, its ends are what the clock on the wall shows (PEP 495); it is never skipped.
"""

import difflib
import re
from datetime import UTC, datetime, time, timedelta
from typing import Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
DAYS_LOOKED_AT = 8
"""A window comes at least once a week."""


class Window(BaseModel):
    """Hours on days of the week."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: str
    """`22:00`, by the clock on the wall."""
    end: str
    """Excluded; on the next day if it is not after `start`."""
    zone: str = "UTC"
    """For example `Europe/Berlin`."""
    days: tuple[Day, ...] = Field(default=DAYS, min_length=1)
    """On which it begins."""

    @field_validator("start", "end")
    @classmethod
    def _of_a_clock(cls, value: str) -> str:
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
            raise ValueError("expected hours and minutes such as 22:00")
        return value

    @field_validator("zone")
    @classmethod
    def _known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (OSError, ValueError, KeyError) as error:  # which one depends on the letters of the name
            near = difflib.get_close_matches(zone, sorted(available_timezones()), n=1)
            raise ValueError(f"no time zone is called so{f'; did you mean {near[0]!r}?' if near else ''}") from error
        return zone

    @model_validator(mode="after")
    def _lasts(self) -> "Window":
        if self.start == self.end:
            raise ValueError("start and end are the same: leave the window out if any hour will do")
        return self

    def until_ms(self, now_ms: int) -> int | None:
        """Return when the window that is open now ends (Unix milliseconds), or None if none is open."""
        return next((end for start, end in self._near(now_ms) if start <= now_ms < end), None)

    def next_ms(self, now_ms: int) -> int:
        """Return when the next window begins."""
        return next(start for start, _end in self._near(now_ms) if start > now_ms)

    def words(self) -> str:
        """Return it for a person."""
        days = "daily" if set(self.days) == set(DAYS) else ", ".join(day for day in DAYS if day in self.days)
        return f"{days} {self.start} to {self.end} {self.zone}"

    def clock_words(self, at_ms: int) -> str:
        """Return a moment as the clock of its place shows it."""
        return f"{datetime.fromtimestamp(at_ms / 1000, ZoneInfo(self.zone)):%a %d %b %H:%M} {self.zone}"

    def _near(self, now_ms: int) -> list[tuple[int, int]]:
        """Return begin and end of the windows from yesterday's to next week's, in order."""
        zone = ZoneInfo(self.zone)
        today = datetime.fromtimestamp(now_ms / 1000, zone).date()
        start, end = time.fromisoformat(self.start), time.fromisoformat(self.end)
        found = []
        for offset in range(-1, DAYS_LOOKED_AT):
            day = today + timedelta(days=offset)
            if DAYS[day.weekday()] in self.days:
                last = day if end > start else day + timedelta(days=1)
                ends = [datetime.combine(d, t, zone).astimezone(UTC) for d, t in ((day, start), (last, end))]
                found.append((int(ends[0].timestamp() * 1000), int(ends[1].timestamp() * 1000)))
        return found
