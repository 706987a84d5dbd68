"""Whether drift from clean to soiled metal is seen before the pits: `python -m models.ball_screw.drift`.

Rules:
- The station sees the bench's four positions in turn, in the order in which the pictures were taken.
- What is measured is what devices measure (`edge.gate`), compared as devices compare it (`edge.drift`).
- The reference is the first four pictures of each position; the window is eight rounds.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.drift import DriftWatch
from edge.gate import picture_metrics
from export import reference
from models.ball_screw.data import position_of, time_of
from models.realdata import add_option, folder_of

FRESH = 16
"""Pictures of the reference: half a day of the test."""
WINDOW = 32


@dataclass(frozen=True)
class Alarm:
    """Drift of one metric, first seen."""

    metric: str
    picture: int
    """Number of the picture, from 0, in the order of time."""
    time: str
    """yymmddHHMMSS."""


@dataclass(frozen=True)
class Seen:
    """What the drift measure said, and when the first pits came."""

    pictures: int
    alarms: list[Alarm]
    """In the order of time; only the first of each metric."""
    first_pit: int
    """Number of the first picture with an outlined pit."""
    first_pit_time: str
    lasting_pit: int
    """Number of the first pitted picture whose position stays pitted in its next eight pictures."""
    lasting_pit_time: str


def watch(folder: Path, fresh: int = FRESH, window: int = WINDOW) -> Seen:
    """Go through the bench's pictures in time.

    Args:
        folder: the folder `ball-screw`.
        fresh: pictures of the reference.
        window: pictures of one comparison.
    """
    paths = sorted((path for path in folder.glob("*/*.jpg") if time_of(path.name)), key=lambda p: time_of(p.name))
    pictures = (np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR), np.uint8) for path in paths)
    rows = [picture_metrics(picture) for picture in pictures]
    known = {name: np.array([row[name] for row in rows[:fresh]]) for name in rows[0]}
    drift = DriftWatch(reference.histograms(known), window=window)
    alarms: dict[str, Alarm] = {}
    for number, row in enumerate(rows[fresh:], fresh):
        for shift in drift.add(row):
            if shift.raised:
                alarms.setdefault(shift.metric, Alarm(shift.metric, number, time_of(paths[number].name)))
    pits = [number for number, path in enumerate(paths) if path.parent.name == "pitting"]
    lasting = _lasting(paths)
    return Seen(
        pictures=len(paths),
        alarms=sorted(alarms.values(), key=lambda alarm: alarm.picture),
        first_pit=pits[0],
        first_pit_time=time_of(paths[pits[0]].name),
        lasting_pit=lasting,
        lasting_pit_time=time_of(paths[lasting].name),
    )


def _lasting(paths: list[Path]) -> int:
    """Return the first pitted picture whose position has no good one among its next eight."""
    for number, path in enumerate(paths):
        if path.parent.name == "pitting":
            place = position_of(path.name)
            later = [p for p in paths[number + 1 :] if position_of(p.name) == place][:8]
            if all(p.parent.name == "pitting" for p in later):
                return number
    raise ValueError(f"{paths[0].parent.parent}: expected pitted pictures, found none")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.ball_screw.drift", description="Watch drift over time.")
    add_option(parser, "ball-screw")
    parser.add_argument("--fresh", type=int, default=FRESH, help="pictures of the reference")
    parser.add_argument("--window", type=int, default=WINDOW, help="pictures of one comparison")
    options = parser.parse_args()
    print(json.dumps(asdict(watch(folder_of("ball-screw", options.data), options.fresh, options.window)), indent=1))
