"""Which cores the daemon and all its children run on, and how much of them they use.

Rules:
- The kernel holds them to it (sched_setaffinity(2)): every thread there is, and all threads and children that come.
- Cores are whole. A share of one is systemd's to give: `CPUQuota=` in the unit, whose cgroup holds the children too.
- What this machine does not have is left out and told; a daemon never stands still for want of a core.
"""

import contextlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from edge.clock import Clock
from edge.errors import ConfigError

PROC = Path("/proc")
METER_S = 1.0
"""A share of less time than this says nothing."""
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_UTIME = 11
"""Place of utime behind the name in /proc/PID/stat (proc(5)); stime, cutime and cstime follow."""


class Held(NamedTuple):
    """What the daemon is held to."""

    cores: tuple[int, ...]
    problem: str | None
    """What was asked for and cannot be had, in words."""


def choose(wanted: int | Collection[int], allowed: Collection[int]) -> Held:
    """Return the cores to run on: pure.

    Args:
        wanted: how many, or which by their numbers.
        allowed: the cores that this process may use now.
    """
    have = sorted(allowed)
    if isinstance(wanted, int):
        missing = wanted - len(have)
        problem = f"{wanted} cores were asked for, this process may use {len(have)}" if missing > 0 else None
        return Held(tuple(have[:wanted]), problem)
    found = tuple(core for core in have if core in wanted)
    if not found:
        return Held(tuple(have), f"none of the cores {_words(wanted)} is there; it runs on {_words(have)}")
    gone = sorted(set(wanted) - set(found))
    return Held(found, f"core {_words(gone)} is not there; it runs on {_words(found)}" if gone else None)


def hold(wanted: int | Collection[int] | None) -> Held | None:
    """Hold this process, with all its threads and its children to come, to these cores; None to leave it as it is.

    To be called before threads and children are started: those that run already are moved, their children are not.

    Raises:
        ConfigError: the kernel does not allow it.
    """
    if wanted is None:
        return None
    held = choose(wanted, os.sched_getaffinity(0))
    try:
        for thread in (PROC / "self" / "task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.sched_setaffinity(int(thread.name), held.cores)
    except OSError as error:
        raise ConfigError(f"device.cores: the kernel does not hold it to {_words(held.cores)}: {error}") from error
    return held


def cpu_seconds(pid: int, *, proc: Path = PROC) -> float:
    """Return the processor time of a process and of all its descendants, also of those that have ended."""
    try:
        # The name stands in brackets and may hold anything, also brackets and spaces.
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    own = sum(map(int, fields[_UTIME : _UTIME + 4])) * _TICK_S
    return own + sum(cpu_seconds(child, proc=proc) for child in children(pid, proc=proc))


def children(pid: int, *, proc: Path = PROC) -> list[int]:
    """Return the children of a process; empty if it is gone or not ours."""
    found: list[int] = []
    for path in (proc / str(pid) / "task").glob("*/children"):
        try:
            found += [int(child) for child in path.read_text().split()]
        except OSError:
            continue
    return found


class Meter:
    """Says how much of a core the daemon and its children use. Used by one thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._before: tuple[float, float] | None = None
        self.percent: float | None = None
        """Of one core, since the look before; None before the second look. Also read from other threads."""

    def look(self) -> None:
        """Measure anew, if that is not too soon."""
        now_s = self._clock.monotonic_s()
        if self._before is not None and now_s - self._before[0] < METER_S:
            return
        used_s = cpu_seconds(os.getpid())
        if self._before is not None:
            share = (used_s - self._before[1]) / (now_s - self._before[0])
            self.percent = round(100 * max(0.0, share), 1)
        self._before = now_s, used_s


def _words(cores: Collection[int]) -> str:
    return ", ".join(map(str, sorted(cores)))
