"""Runs one daemon with two stations for an hour under injected faults: `python -m tests.faults.soak --minutes 60`.

Rules:
- The same seed gives the same faults in the same order; what the machine makes of them is its own.
- Faults that end the daemon come in the first half, so that memory is judged over one long life.
- A fault that does not mend itself within its bound ends the run; what was found so far is printed all the same.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.tables import print_table
from tests.faults.soakchecks import Memory, Sample, decisions_problems, memory_of, memory_problems, pictures_problems
from tests.faults.soakfaults import FAULTS, Fault
from tests.faults.soakline import RECOVERY_S, STATIONS, Line

HOLD_SHARE = 0.25
HOLD_MAX_S = 20.0
"""A fault lasts a quarter of its slot, at most so long: what comes after it is looked at longer than itself."""
SAMPLE_EVERY_S = 1.0

Say = Callable[[str], None]


@dataclass
class Injected:
    """One fault as it went."""

    at_s: float
    fault: str
    took_s: float
    """From the first blow to both stations deciding and the cloud storing."""
    memory_mib: float | None


@dataclass
class Outcome:
    """A whole run."""

    seed: int
    minutes: float
    faults: list[Injected] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    memory: Memory | None = None
    problems: list[str] = field(default_factory=list)


class Soak:
    """One run on a line."""

    def __init__(self, line: Line, rng: random.Random, duration_s: float, outcome: Outcome, say: Say) -> None:
        self._line, self._rng, self._duration_s, self._outcome, self._say = line, rng, duration_s, outcome, say
        self._began_s = time.monotonic()
        self._samples: list[Sample] = []

    def run(self, faults: Sequence[Fault]) -> None:
        """Inject the faults, each in its slot of the time, and check everything at the end."""
        try:
            self._line.wait_until_well()
            self._began_s = time.monotonic()
            slot_s = self._duration_s / len(faults)
            for number, fault in enumerate(faults):
                self._one(fault, slot_s)
                self._run_for(slot_s * (number + 1) - self._now_s())
            self._look_often_enough()
            self._finish()
        except AssertionError as error:
            self._outcome.problems.append(str(error))

    def _one(self, fault: Fault, slot_s: float) -> None:
        at_s = self._now_s()
        try:
            fault.inject(self._line, lambda: self._run_for(min(slot_s * HOLD_SHARE, HOLD_MAX_S), sample=False))
            self._line.wait_until_well()
        except AssertionError as error:
            raise AssertionError(f"{fault.name}: {error}") from error
        last = self._samples[-1].size_bytes / 2**20 if self._samples else None
        done = Injected(at_s, fault.name, self._now_s() - at_s, last)
        self._outcome.faults.append(done)
        self._say(f"{at_s:6.0f} s  {fault.name:<24} well again after {done.took_s:5.1f} s")

    def _run_for(self, wait_s: float, *, sample: bool = True) -> None:
        """Let the line run, and look at its memory now and then while nothing is broken."""
        until_s = time.monotonic() + wait_s
        while (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, SAMPLE_EVERY_S))  # time itself is what a soak is made of
            if sample and (size := self._line.private_bytes()) is not None:
                self._samples.append(Sample(self._now_s(), size))

    def _look_often_enough(self) -> None:
        """Go on where faults took all the time there was: memory is judged by no fewer samples for that."""
        until_s = time.monotonic() + RECOVERY_S
        while memory_of(self._samples, self._duration_s / 2) is None and time.monotonic() < until_s:
            self._run_for(SAMPLE_EVERY_S)

    def _finish(self) -> None:
        """Let everything come to rest and look at it."""
        line, outcome = self._line, self._outcome
        line.camera.stop()
        line.belt.plugged = False
        line.device.wait_for(line.caught_up, RECOVERY_S, "every picture to be decided and stored")
        self._stop()
        through = line.last_seq()
        # What was decided between the last look and the end is sent by the next start: nothing is left to chance.
        line.device.start()
        line.device.wait_for(lambda: line.stored_through() >= through, RECOVERY_S, "the rest to be stored")
        self._stop()
        outcome.memory = memory_of(self._samples, self._duration_s / 2)
        outcome.counts = _counts(line)
        outcome.problems += (
            decisions_problems(line, through)
            + pictures_problems(line, disk_was_full=any(done.fault == "disk_full" for done in outcome.faults))
            + memory_problems(outcome.memory)
        )

    def _stop(self) -> None:
        if code := self._line.device.stop():
            self._outcome.problems.append(f"the daemon ended with {code}")

    def _now_s(self) -> float:
        return time.monotonic() - self._began_s


def soak(folder: Path, *, minutes: float, faults: int, seed: int, say: Say) -> Outcome:
    """Run it all in an empty folder and return what came of it."""
    rng = random.Random(seed)
    outcome = Outcome(seed, minutes)
    with Line(folder, rng) as line:
        table = [fault for fault in FAULTS if line.disk is not None or not fault.needs_disk]
        Soak(line, rng, minutes * 60, outcome, say).run(drawn(table, faults, rng))
    return outcome


def drawn(table: Sequence[Fault], count: int, rng: random.Random) -> list[Fault]:
    """Draw faults, each once before any comes twice; those that end the daemon in the first half."""
    found: list[Fault] = []
    while len(found) < count:
        found += rng.sample(table, min(len(table), count - len(found)))
    half = max(1, count // 2)
    enders = [fault for fault in found if fault.ends_daemon][:half]
    others = [fault for fault in found if not fault.ends_daemon]
    first = [*enders, *others[: half - len(enders)]]
    rng.shuffle(first)
    return [*first, *others[half - len(enders) :]]


def main() -> int:
    """Run from the command line; 0 if nothing was lost and memory is flat, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long the line runs (default: %(default)s)")
    parser.add_argument("--faults", type=int, default=20, help="how many faults (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the faults; without, one is drawn and printed")
    parser.add_argument("--json", action="store_true", help="print the outcome as one JSON object")
    arguments = parser.parse_args()
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    _say(f"seed {seed}, {arguments.minutes:g} minutes, {arguments.faults} faults")
    with tempfile.TemporaryDirectory(prefix="lineside-soak-") as folder:
        outcome = soak(Path(folder), minutes=arguments.minutes, faults=arguments.faults, seed=seed, say=_say)
    _show(outcome, as_json=arguments.json)
    return 1 if outcome.problems else 0


def _counts(line: Line) -> dict[str, int]:
    acted = {f"actions_{station}": len(line.device.actions(station)) for station in STATIONS}
    unrecorded = sum(len(line.unrecorded(station)) for station in STATIONS)
    in_cloud = line.cloud.rows("SELECT count(*) FROM decisions")[0][0]
    return {
        "pictures_delivered": len(line.delivered),
        **acted,
        "safe_actions_unrecorded": unrecorded,
        "decisions_in_cloud": int(in_cloud),
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        memory = outcome.memory._asdict() if outcome.memory else None
        print(json.dumps({**asdict(outcome), "memory": memory}))
        return
    if outcome.faults:
        print_table("faults", [asdict(fault) for fault in outcome.faults], as_json=False)
    if outcome.memory:
        print_table("memory in the second half", [outcome.memory._asdict()], as_json=False)
    if outcome.counts:
        print_table("parts", [dict(outcome.counts)], as_json=False)
    print("\n".join(outcome.problems) or "nothing was lost, memory is flat")


if __name__ == "__main__":
    sys.exit(main())
