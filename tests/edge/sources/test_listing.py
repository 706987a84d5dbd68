"""What a listing keeps of a large folder: its memory grows with the folder, and little with each file."""

import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.sources import listing as listing_module
from edge.sources.listing import Listing
from tests.clocks import HeldClock

FILES = 3000
BYTES_A_FILE = 400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(FILES):
        (tmp_path / f"{number:06d}.png").touch()
    return tmp_path


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def listed(folder: Path, clock: HeldClock, *, loop: bool = False) -> Listing:
    return Listing(folder, lambda _name: True, clock, loop=loop, watch=True)


def take(listing: Listing) -> list[str]:
    return [entry.name for entry in iter(listing.next, None)]


def kept_bytes() -> int:
    """Return what the code of the listing holds.

    Not what the process holds: pathlib interns names, and the interpreter's table of interned strings grows by
    megabytes at a time, at whichever name comes next.
    """
    only_its_own = tracemalloc.Filter(inclusive=True, filename_pattern=listing_module.__file__)
    held = tracemalloc.take_snapshot().filter_traces([only_its_own]).statistics("filename")
    return sum(statistic.size for statistic in held)


def settled_clock() -> HeldClock:
    """Return a clock of an hour after the files of this test were made."""
    return HeldClock(round((time.time() + 3600) * 1000))


@pytest.mark.usefixtures("traced")
def test_decided_files_take_a_few_hundred_bytes_each(folder: Path) -> None:
    clock = settled_clock()
    listing = listed(folder, clock)
    assert len(take(listing)) == FILES
    clock.forward(60)
    assert listing.next() is None, "it was scanned again and nothing is new"
    assert BYTES_A_FILE / 4 < kept_bytes() / FILES < BYTES_A_FILE


@pytest.mark.usefixtures("traced")
def test_files_that_are_gone_take_nothing(folder: Path) -> None:
    clock = settled_clock()
    listing = listed(folder, clock)
    take(listing)
    for path in folder.iterdir():
        path.unlink()
    clock.forward(60)
    assert listing.next() is None
    assert kept_bytes() / FILES < 40, "a little for tables that do not shrink"


def test_file_that_goes_while_it_waits_is_passed_over_and_one_that_comes_is_put_in_its_place(folder: Path) -> None:
    clock = settled_clock()
    listing = listed(folder, clock)
    first = listing.next()
    assert first is not None and first.name == "000000.png"
    (folder / "000002.png").unlink()
    (folder / "0.png").touch()
    clock.forward(60)
    assert take(listing)[:3] == ["0.png", "000001.png", "000003.png"]


def test_round_begins_again_with_what_is_there(tmp_path: Path) -> None:
    for name in ("b2.png", "b10.png", "a.png"):
        (tmp_path / name).touch()
    clock = settled_clock()
    listing = listed(tmp_path, clock, loop=True)
    names = [entry.name for entry in (listing.next() for _ in range(4)) if entry]
    assert names == ["a.png", "b2.png", "b10.png", "a.png"] and listing.round == 2
