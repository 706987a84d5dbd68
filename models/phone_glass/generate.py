"""Writes pictures of phone backs into a folder, as a camera over a line would: `python -m models.phone_glass.generate`.

Rules:
- Names in natural order are in order of time; a picture appears under its name only when it is whole.
- `truth.csv` has a picture's line before the picture appears: file, label, severity, the length of what shows in mm,
  and the label that the convention gives it (`convention.py`).
- The same seed gives the same pictures; `--start` goes on where an earlier run ended.
"""

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2

from models.phone_glass.convention import CONVENTION, Convention, length_mm
from models.phone_glass.defects import U8
from models.phone_glass.generator import Studio
from models.phone_glass.parts import (
    FADING,
    LIGHTS,
    MIXED,
    Light,
    Part,
    light_of,
    make_part,
    of_drawn_batch,
    of_new_batch,
    with_small_mark,
)

JPEG_QUALITY = 90
_TRUTH_NAME = "truth.csv"


USUAL = "usual"
BATCHES: dict[str, Callable[[Part], Part]] = {
    USUAL: lambda part: part,
    "new": of_new_batch,
    "drawn": of_drawn_batch,
    "small": with_small_mark,
}


@dataclass(frozen=True)
class Shot:
    """A part as photographed, with its truth."""

    part: Part
    light: Light
    jpeg: bytes
    length_mm: float
    """Of what shows of the defect; 0 for a good part."""


def encoded(picture: U8) -> bytes:
    """Return a picture as JPEG, as the camera sends it."""
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return data.tobytes()


def series(
    *, seed: int, start: int, count: int, light: str, defect_share: float, studio: Studio, batch: str = USUAL
) -> Iterator[Shot]:
    """Yield parts `start` … `start + count - 1` as photographed.

    Args:
        light: a name in `LIGHTS`, `mixed` for the lights that stations are set up with, `fading` for a lamp that ages.
        batch: `usual`, `new` for a new batch of material, `drawn` for sixteen materials drawn at random, `small` for
            marks around the convention's length.
    """
    for number in range(start, start + count):
        part = BATCHES[batch](make_part(seed, number, defect_share))
        chosen = light_of(light, seed, number)
        picture, mask = studio.photograph_with_truth(part, chosen)
        yield Shot(part, chosen, encoded(picture), part.mark_mm if part.mark_mm is not None else length_mm(mask))


def write_series(
    out: Path,
    pictures: Iterator[Shot],
    *,
    rate_hz: float | None = None,
    convention: Convention = CONVENTION,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> int:
    """Write pictures and their truth; return how many. With `rate_hz`, not faster than that."""
    out.mkdir(parents=True, exist_ok=True)
    began, written = monotonic(), 0
    for shot in pictures:
        if rate_hz:
            sleep(max(0.0, began + written / rate_hz - monotonic()))
        name = f"phone-{shot.part.number:06d}-{shot.light.name}.jpg"
        _note_truth(out / _TRUTH_NAME, name, shot, convention)
        beside = out / f".{name}.part"
        beside.write_bytes(shot.jpeg)
        beside.replace(out / name)
        written += 1
    return written


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    pictures = series(
        seed=options.seed,
        start=options.start,
        count=options.count,
        light=options.light,
        defect_share=options.defect_share,
        studio=Studio(),
        batch=options.batch,
    )
    convention = Convention(longer_than_mm=options.longer_than_mm)
    written = write_series(options.out, pictures, rate_hz=options.rate, convention=convention)
    print(f"{written} pictures in {options.out}, truth in {options.out / _TRUTH_NAME}")
    return 0


def _note_truth(path: Path, name: str, shot: Shot, convention: Convention) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        rows = csv.writer(file)
        if new:
            rows.writerow(["file", "label", "severity", "length_mm", "by_convention"])
        part = shot.part
        judged = convention.label(part.label, shot.length_mm)
        rows.writerow([name, part.label, part.severity, shot.length_mm, judged])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.phone_glass.generate", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write into; made if it is not there")
    parser.add_argument("--count", type=int, default=100, help="how many pictures (default 100)")
    parser.add_argument("--seed", type=int, default=1, help="which series of parts (default 1)")
    parser.add_argument("--start", type=int, default=0, help="number of the first part (default 0)")
    parser.add_argument("--light", choices=[*LIGHTS, MIXED, FADING], default="normal", help="the lamp (default normal)")
    told = "new: a new batch of material; drawn: materials drawn at random; small: marks around 0.3 mm"
    parser.add_argument("--batch", choices=list(BATCHES), default=USUAL, help=told)
    parser.add_argument(
        "--longer-than-mm", type=float, default=0.3, help="the convention: a mark is a defect if longer (default 0.3)"
    )
    parser.add_argument("--rate", type=float, default=None, help="at most this many pictures per second")
    parser.add_argument("--defect-share", type=float, default=0.3, help="share of defective parts (default 0.3)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
