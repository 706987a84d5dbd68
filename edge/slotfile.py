"""Keeps the book of slots on disk, one small checked file a model, and the bundles' files beside it.

Rules:
- The book is written, synced, renamed and its folder synced before a change takes effect.
- A book that is damaged is put aside and begun anew from the bundles that are there, and it says so.
- Only files that the book no longer needs are deleted.
"""

import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge.clock import Clock
from edge.errors import StoreError
from edge.files import make_directory, read_checked_json, write_checked_json
from edge.slots import Book, Slot
from edge.wire.base import BundleRef


class SlotFile:
    """The book of one model, shared by the threads that use it."""

    def __init__(self, folder: Path, model: str, clock: Clock) -> None:
        self._path = folder / f"slots-{model}.json"
        self._bundles = folder / "bundles"
        self._clock = clock
        self._lock = threading.Lock()
        self.problem: str | None = None
        """What was wrong with the book at start, for an event; None if nothing was."""
        make_directory(self._bundles)
        self._book = self._load()

    @property
    def book(self) -> Book:
        return self._book

    def bundle_path(self, ref: BundleRef) -> Path:
        """Return where this bundle's file lies or will lie."""
        return self._bundles / f"{ref.digest}.lsb"

    def change(self, rule: Callable[[Book, int], Book]) -> Book:
        """Apply a rule of `slots` and persist the result before anyone sees it.

        Raises:
            StoreError: the book could not be written; it is as it was.
        """
        with self._lock:
            after = rule(self._book, self._clock.now_ms())
            if after != self._book:
                write_checked_json(self._path, _to_json(after))
                self._book = after
            return after

    def delete_unneeded(self, every_book: list[Book]) -> list[str]:
        """Delete bundle files that no book needs; return their digests."""
        needed = set().union(*(book.needed for book in every_book))
        gone = [path for path in self._bundles.glob("*.lsb") if path.stem not in needed]
        for path in gone:
            path.unlink(missing_ok=True)
        return [path.stem for path in gone]

    def _load(self) -> Book:
        try:
            document = read_checked_json(self._path)
            return Book() if document is None else _from_json(document)
        except (StoreError, ValueError, KeyError, TypeError) as error:
            aside = self._path.with_suffix(f".damaged-{self._clock.now_ms()}")
            self._path.rename(aside)
            self.problem = f"the book of slots was damaged ({error}); kept as {aside.name}, begun anew"
            return Book()


def _to_json(book: Book) -> dict[str, Any]:
    document = asdict(book)
    document["slots"] = [{**asdict(slot), "ref": slot.ref.model_dump()} for slot in book.slots]
    return document


def _from_json(document: Any) -> Book:
    slots = tuple(
        Slot(BundleRef.model_validate(item["ref"]), item["state"], item["since_ms"], item["reason"], item["starts"])
        for item in document["slots"]
    )
    return Book(slots, document["current"], document["previous"], document["floor"])
