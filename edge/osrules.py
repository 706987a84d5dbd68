"""Says what the slots for operating systems ask for: which start this is, and whether it may be restarted now. Pure.

Rules:
- What should run is what the book says (`edge.slots`): the system on trial, else the current one. What does run, the
  machine says. Where they differ, the boot chain's count tells whether it was tried.
- The line comes first: a restart waits for quiet and for its window, but not for ever.

| situation | what it means                                                   | what is done                         |
|-----------|-----------------------------------------------------------------|--------------------------------------|
| first     | nothing is known yet                                            | what runs is taken in as good        |
| settled   | what should run runs                                            | it is confirmed                      |
| on_trial  | a new one runs                                                  | its probation; confirmed, or left    |
| waiting   | another one is in place and was not tried, or not to its end    | armed, and started when it may be    |
| left      | another one had all its starts in vain: this is the way back    | it is bad, and never tried again     |
"""

from dataclasses import dataclass
from typing import Literal

from edge.osslots.interface import Tries
from edge.slots import Book

Situation = Literal["first", "settled", "on_trial", "waiting", "left"]
WINDOW_PATTERN = r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"
DAY_MIN = 24 * 60


@dataclass(frozen=True)
class Quiet:
    """When a restart disturbs nobody."""

    idle_s: float
    """Nothing was decided for so long."""
    window: str | None
    """Hours of the day by the device's own clock, such as 02:00-04:00; None for any."""
    wait_max_s: float
    """Then it is restarted all the same, between two windows."""


def situation(book: Book, running: str, other: Tries | None) -> Situation:
    """Return which start this is.

    Args:
        book: what the device knows of its systems.
        running: digest of the one that runs.
        other: how the other slot stands with the boot chain; None if it cannot be started.
    """
    if book.serving is None:
        return "first"
    if book.serving.ref.digest == running:
        return "on_trial" if book.trial else "settled"
    return "left" if other is not None and other.exhausted else "waiting"


def waits_for(quiet: Quiet, *, minute_of_day: int, idle_s: float, waited_s: float) -> str | None:
    """Return what a restart waits for, in words; None if it may be now."""
    if waited_s >= quiet.wait_max_s:
        return None
    if quiet.window is not None and not in_window(quiet.window, minute_of_day):
        return f"its hours, {quiet.window}"
    if idle_s < quiet.idle_s:
        return f"{quiet.idle_s:g} s without a decision"
    return None


def in_window(window: str, minute_of_day: int) -> bool:
    """Return whether a minute lies within hours such as 22:00-04:00; those of equal ends are the whole day."""
    begin, end = (int(at[:2]) * 60 + int(at[3:]) for at in window.split("-"))
    length = (end - begin) % DAY_MIN or DAY_MIN
    return (minute_of_day - begin) % DAY_MIN < length


def reason_left(noted: str, starts: int) -> str:
    """Return why a system was left, in words.

    Args:
        noted: what the watch outside of the daemon has noted; it may be empty.
        starts: how often it was started.
    """
    words = f"started {starts} time{'s' * (starts != 1)} and never well"
    return f"{words}: {noted}" if noted else words
