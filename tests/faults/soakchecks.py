"""What must be true after a soak: each check returns what is wrong in words, nothing if all is well.

Rules:
- A decision that an actuator saw is in the cloud exactly once, and in the record unless it was pruned from there.
- A picture was decided, or its part took the safe action because nothing could be recorded; a deferral has its reason.
- Only a disk that was full keeps a decision from being recorded.
- Memory is judged over the second half of the run, in which the daemon lives one life: the median of its last third
  against that of its first, because a single sample moves by what the allocator happens to hold.
"""

from collections import Counter
from collections.abc import Sequence
from statistics import linear_regression, median
from typing import Any, NamedTuple

from tests.faults.sameness import rows_in_cloud
from tests.faults.soakline import STATIONS, Line

GROWTH = 1.1
"""Private memory at the end may be so many times that at the beginning of the second half."""
NAMED = 5
FEW = 6
"""With fewer samples nothing is said about memory, and that is a failure."""
MIB = 2**20


class Sample(NamedTuple):
    """Private memory of the daemon and its children at a moment."""

    at_s: float
    size_bytes: int


class Memory(NamedTuple):
    """How memory went."""

    samples: int
    first_mib: float
    last_mib: float
    growth: float
    slope_mib_per_h: float


def decisions_problems(line: Line, through: int) -> list[str]:
    """Compare what the actuators saw with the record, and up to the row `through` with the cloud."""
    device = line.device
    ((incarnation, first_seq),) = device.rows("SELECT incarnation, (SELECT min(seq) FROM rows) FROM state")
    try:
        in_cloud = rows_in_cloud(device.name, incarnation, line.cloud)  # fails on a number that is there twice
    except AssertionError as error:
        return [str(error)]
    recorded = {decision["seq"]: decision for decision in device.decisions()}
    acted = [action for station in STATIONS for action in device.actions(station) if action["decision"] is not None]
    problems = [f"acted on twice: {seq}" for seq, n in Counter(a["decision"] for a in acted).items() if n > 1]
    for action in acted:
        seq = action["decision"]
        kind, body = in_cloud.get(seq, ("nothing", {}))
        if seq >= first_seq and seq not in recorded:
            problems.append(f"{seq} was acted on and is not in the record")
        if seq <= through and (kind, body.get("verdict"), body.get("station")) != (
            "decision",
            action["verdict"],
            action["station"],
        ):
            problems.append(f"{seq} was acted on, the cloud has {kind}")
    unsent = sorted(seq for seq in recorded.keys() - in_cloud.keys() if seq <= through)
    problems += [f"{seq} is on record and not in the cloud" for seq in unsent]
    quarantined = line.cloud.rows("SELECT reason FROM quarantine")
    return problems + [f"the cloud put aside: {reason}" for (reason,) in quarantined]


def pictures_problems(line: Line, *, disk_was_full: bool) -> list[str]:
    """Compare what was delivered with what was decided."""
    bodies = [body for kind, body in _cloud_rows(line).values() if kind == "decision"]
    times = Counter(body["input"]["name"] for body in bodies if body["station"] == "main")
    missing = line.delivered - times.keys()
    problems = [f"decided {n} times: {name}" for name, n in times.items() if n > 1]
    if len(missing) > len(line.unrecorded()):
        named = ", ".join(sorted(missing)[:NAMED])
        problems.append(f"{len(missing)} never decided, {len(line.unrecorded())} safe actions: {named}")
    if not disk_was_full and (lost := sum(len(line.unrecorded(station)) for station in STATIONS)):
        problems.append(f"{lost} decisions found no room though the disk was never full")
    silent = [body["seq"] for body in bodies if body["verdict"] == "defer" and not body.get("reason")]
    return problems + [f"{seq} was deferred without a reason" for seq in silent]


def memory_of(samples: Sequence[Sample], since_s: float) -> Memory | None:
    """Sum up the samples after a moment; None if there are too few."""
    late = [sample for sample in samples if sample.at_s >= since_s]
    if len(late) < FEW:
        return None
    third = len(late) // 3
    first = median(sample.size_bytes for sample in late[:third])
    last = median(sample.size_bytes for sample in late[-third:])
    slope = linear_regression([s.at_s for s in late], [s.size_bytes for s in late]).slope
    return Memory(len(late), first / MIB, last / MIB, last / first, slope * 3600 / MIB)


def memory_problems(memory: Memory | None) -> list[str]:
    """Say whether memory grew."""
    if memory is None:
        return [f"memory was seen fewer than {FEW} times in the second half"]
    if memory.growth > GROWTH:
        return [f"memory grew {memory.growth:.2f} times in the second half, expected at most {GROWTH}"]
    return []


def _cloud_rows(line: Line) -> dict[int, tuple[str, dict[str, Any]]]:
    ((incarnation,),) = line.device.rows("SELECT incarnation FROM state")
    return rows_in_cloud(line.device.name, incarnation, line.cloud)
