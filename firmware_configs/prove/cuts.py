"""Cuts the power of a recorded device at thousands of points, judges what is left, and starts some of it again.

Rules:
- Every state is one that a sound medium may leave: what was flushed is there. `lying_flushes` makes a medium that only
  says so of every other flush, to show that the judge finds what such a medium loses.
- A state is named by the seed and its point: the same two make it again.
- A device that is started from a state has no network: what it comes back by is its own.
"""

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from firmware_configs.errors import BuildError
from firmware_configs.prove.boot import FIRST_DECISION, STEP_S
from firmware_configs.prove.crash import Cut, Replay, cut_at
from firmware_configs.prove.qemu import Guest, accelerator
from firmware_configs.prove.recording import Recording
from firmware_configs.prove.states import Verdict, judge
from firmware_configs.prove.writelog import FLUSH, Entry, read_log
from firmware_configs.sparse import copy_sparse

MAX_TOLD = 20
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of an unguessable name is made in it
"""Where states lie while they are judged, if it is there: a data partition is copied for each."""


@dataclass
class Fault:
    """A state that is not as it should be."""

    point: int
    part: str
    way: str
    problems: list[str]


@dataclass
class Story:
    """What was found."""

    seed: int
    entries: int
    flushes: int
    log_mb: float
    states: int = 0
    dropped_writes: int = 0
    """Of all states together: writes that are missing, at least in part."""
    by_part: dict[str, int] = field(default_factory=dict)
    by_start: dict[str, int] = field(default_factory=dict)
    """How many states would start which system."""
    without_data: int = 0
    most_decisions: int = 0
    faulty: int = 0
    faults: list[Fault] = field(default_factory=list)
    """The first of them."""
    seconds: float = 0.0
    starts: list["Start"] = field(default_factory=list)


@dataclass
class Start:
    """One device that was started from a state."""

    point: int
    part: str
    system: str
    starts: int = 0
    """How often the machine was started until it decided."""
    first_decision_s: float = 0.0
    """After the switch, of this machine's clock."""
    problems: list[str] = field(default_factory=list)


def points(entries: Sequence[Entry], recording: Recording, count: int, seed: int) -> list[int]:
    """Return where the power is cut: as many points in each part of the log, in order."""
    rng = random.Random(seed)  # noqa: S311 - the same seed gives the same points
    parts: dict[str, list[int]] = {}
    for point in range(1, len(entries) + 1):
        parts.setdefault(recording.part(entries[point - 1].end), []).append(point)
    share = -(-count // max(1, len(parts)))
    return sorted(p for found in parts.values() for p in rng.sample(found, min(share, len(found))))


def lying(entries: Sequence[Entry]) -> list[Entry]:
    """Return the log of a medium that says of every other flush that it has flushed, and has not."""
    return [
        replace(entry, flags=entry.flags & ~FLUSH) if entry.flushes and index % 2 else entry
        for index, entry in enumerate(entries)
    ]


def cuts(
    recording: Recording,
    folder: Path,
    count: int,
    seed: int,
    tell: Callable[[str], None],
    *,
    lying_flushes: bool = False,
) -> Story:
    """Judge `count` states and return what was found.

    Raises:
        BuildError: the log cannot be read.
    """
    entries = read_log(recording.log)
    story = Story(seed, len(entries), sum(e.flushes for e in entries), round(recording.log.stat().st_size / 1e6, 1))
    told = lying(entries) if lying_flushes else entries
    began_s = time.monotonic()
    known: dict[tuple[object, ...], Any] = {}
    with (
        tempfile.TemporaryDirectory(prefix="cuts-", dir=MEMORY if MEMORY.is_dir() else folder) as scratch,
        Replay(recording.base, recording.log, told, Path(scratch) / "disk.img") as replay,
    ):
        for point in points(entries, recording, count, seed):
            cut = cut_at(told, point, seed)
            at = entries[point - 1].end
            with replay.state(cut) as disk:
                verdict = judge(
                    disk, recording.systems, recording.promised(at), Path(scratch), _memory(replay, cut, known)
                )
            _count(story, cut, recording.part(at), verdict)
            if story.states % 100 == 0:
                tell(f"{story.states} states, {story.faulty} with a fault, {time.monotonic() - began_s:.0f} s")
    story.seconds = round(time.monotonic() - began_s, 1)
    return story


def boots(recording: Recording, folder: Path, story: Story, count: int, tell: Callable[[str], None]) -> None:
    """Start a device from `count` states, each in another place of the log, and add what was observed to the story."""
    entries = read_log(recording.log)
    chosen = points(entries, recording, max(count, 1), story.seed + 1)
    rng = random.Random(story.seed)  # noqa: S311 - the same seed gives the same points
    with Replay(recording.base, recording.log, entries, folder / "boots.img") as replay:
        for point in sorted(rng.sample(chosen, min(count, len(chosen)))):
            at = entries[point - 1].end
            with replay.state(cut_at(entries, point, story.seed)) as state:
                copy_sparse(state, folder / "disk.img")
            start = _start(recording, folder, at, Start(point, recording.part(at), ""))
            story.starts.append(start)
            words = "; ".join(start.problems) or f"runs {start.system}, decided after {start.first_decision_s} s"
            tell(f"start {len(story.starts)} from entry {point} ({start.part}): {words}")
    (folder / "boots.img").unlink()


def _start(recording: Recording, folder: Path, at: int, start: Start) -> Start:
    for left_over in ("console.log", "variables.fd"):
        (folder / left_over).unlink(missing_ok=True)
    disk, promised = folder / "disk.img", recording.promised(at)
    try:
        with Guest(disk, folder, "amd64", accelerator("amd64")) as guest:
            guest.wait(lambda: FIRST_DECISION.search(guest.text()), STEP_S, "a decision after the power cut")
            start.first_decision_s, start.starts = round(guest.since_s, 1), guest.starts
    except BuildError as error:
        start.problems.append(str(error))
    verdict = judge(disk, recording.systems, replace(promised, decided=True), folder / "after")
    start.system = verdict.starts
    start.problems += verdict.problems
    return start


def _memory(replay: Replay, cut: Cut, known: dict[tuple[object, ...], Any]) -> Callable[..., Any]:
    def remember(name: str, start: int, size: int, find: Callable[[], Any]) -> Any:
        key = (name, *replay.version(start, size, cut))
        if key not in known:
            known[key] = find()
        return known[key]

    return remember


def _count(story: Story, cut: Cut, part: str, verdict: Verdict) -> None:
    story.states += 1
    story.dropped_writes += cut.dropped
    story.by_part = dict(Counter(story.by_part) + Counter([part]))
    story.by_start = dict(Counter(story.by_start) + Counter([verdict.starts or "none"]))
    story.without_data += not verdict.has_data
    story.most_decisions = max(story.most_decisions, verdict.decisions)
    if verdict.problems:
        story.faulty += 1
        if len(story.faults) < MAX_TOLD:
            story.faults.append(Fault(cut.point, part, cut.way, list(verdict.problems)))
