"""The book of slots on disk: survives restarts, notices damage, deletes only what nobody needs."""

from pathlib import Path

import pytest

from edge import slots
from edge.errors import StoreError
from edge.slotfile import SlotFile
from edge.slots import Book
from tests.clocks import HeldClock
from tests.edge.test_slots import FIRST, SECOND, THIRD


def open_file(folder: Path) -> SlotFile:
    return SlotFile(folder, "glass", HeldClock())


def with_trial(folder: Path) -> SlotFile:
    found = open_file(folder)
    found.change(lambda book, now: slots.preloaded(book, FIRST, now))
    found.change(lambda book, now: slots.downloaded(book, SECOND, now))
    found.change(lambda book, now: slots.activated(book, SECOND, now))
    return found


def test_book_is_the_same_after_a_restart(tmp_path: Path) -> None:
    before = with_trial(tmp_path).book
    assert open_file(tmp_path).book == before
    assert before.trial is not None and before.floor == FIRST.version


def test_new_device_has_an_empty_book(tmp_path: Path) -> None:
    found = open_file(tmp_path)
    assert (found.book, found.problem) == (Book(), None)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "rubbish"])
def test_damaged_book_is_put_aside_and_told(tmp_path: Path, damage: str) -> None:
    with_trial(tmp_path)
    path = tmp_path / "slots-glass.json"
    content = path.read_bytes()
    flipped = content.replace(b"trial", b"good ", 1)
    path.write_bytes({"cut": content[:-20], "flip": flipped, "empty": b"", "rubbish": b"\x00" * 64}[damage])
    found = open_file(tmp_path)
    assert found.book == Book()
    assert found.problem is not None and "damaged" in found.problem
    assert len(list(tmp_path.glob("slots-glass.damaged-*"))) == 1


def test_change_that_cannot_be_written_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_trial(tmp_path)
    before = found.book

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("no space left")

    monkeypatch.setattr("edge.slotfile.write_checked_json", refuse)
    with pytest.raises(StoreError):
        found.change(slots.served)
    assert found.book == before


def test_only_files_that_no_book_needs_are_deleted(tmp_path: Path) -> None:
    found = with_trial(tmp_path)
    for ref in (FIRST, SECOND, THIRD):
        found.bundle_path(ref).write_bytes(b"x")
    other = Book(current=THIRD.digest)
    assert found.delete_unneeded([found.book, other]) == []
    assert found.delete_unneeded([found.book]) == [THIRD.digest]
    assert found.bundle_path(FIRST).exists() and found.bundle_path(SECOND).exists()
