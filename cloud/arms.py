"""What the parts that count evidence have in common: which version on which devices counts, and since when; pure."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

CLOCK_SLACK_MS = 60_000
"""Devices without a clock module are off by seconds; more than a minute before the stage is not the stage."""

Key = tuple[str, str]
"""Device and digest."""
Tally = dict[Key, Counter[str]]
"""Counts by name, and `n` of all cases."""


@dataclass(frozen=True)
class Arm:
    """Which version on which devices, and received when (Unix milliseconds, until excluded)."""

    digests: Mapping[str, str]
    """Digest of the bundle that counts, per device."""
    since_ms: int
    until_ms: int


Counted = Callable[[Connection, Arm, int, int], Tally]
"""Counts what was received from a moment until another (excluded), of any device and the arm's digests."""
