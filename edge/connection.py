"""One connection to the device's record: transactions, and every SQLite error as a StoreError.

Rules:
- Everything inside `with connection.write:` is recorded together or not at all.
- After an error the connection is usable again as soon as the disk is.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from edge.database import store_error
from edge.errors import StoreError
from edge.files import sync_directory


class Connection:
    """An open database with one user at a time."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self.execute = connection.execute
        """Runs one statement; inside `with write`, or wrapped by the caller."""
        self.write = Transaction(connection, path)
        self._connection = connection
        self._named = False

    def all(self, statement: str, *values: Any) -> list[Any]:
        """Return every row of the answer.

        Raises:
            StoreError: it could not be read.
        """
        try:
            return self.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise store_error(error, self.path) from error

    def one(self, statement: str, *values: Any) -> Any:
        """Return the first column of the first row of the answer, or None if the answer is empty.

        Raises:
            StoreError: it could not be read.
        """
        found = self.all(statement, *values)
        return found[0][0] if found else None

    def sync(self) -> None:
        """Return when no power cut can take back what was committed before, by anybody.

        Raises:
            StoreError: the disk failed.
        """
        try:
            descriptor = os.open(self.path.with_name(f"{self.path.name}-wal"), os.O_RDWR)
        except FileNotFoundError:
            return  # checkpointed, which syncs
        try:
            os.fdatasync(descriptor)
            if not self._named:
                # Its name must last too, and keeps as long as this connection is open.
                sync_directory(self.path.parent)
                self._named = True
        except OSError as error:
            raise StoreError(f"cannot sync {self.path}: {error.strerror}", hint="look at the disk") from error
        finally:
            os.close(descriptor)

    def used_bytes(self) -> int:
        """Return what the pages in use take; the write-ahead log beside them grows to some 4 MB.

        Raises:
            StoreError: it could not be read.
        """
        return int((self.one("PRAGMA page_count") - self.one("PRAGMA freelist_count")) * self.one("PRAGMA page_size"))

    def unused_bytes(self) -> int:
        """Return what the pages take that are free for what comes.

        Raises:
            StoreError: it could not be read.
        """
        return int(self.one("PRAGMA freelist_count") * self.one("PRAGMA page_size"))

    def give_back(self, pages: int) -> None:
        """Give up to so many free pages back to the disk; the file gets shorter with the next checkpoint.

        Raises:
            StoreError: the disk does not allow it.
        """
        try:
            # Not `execute`: it takes one step of a statement without columns, which is one page.
            self._connection.executescript(f"PRAGMA incremental_vacuum({pages})")
        except sqlite3.Error as error:
            raise store_error(error, self.path) from error

    @contextmanager
    def overwriting(self) -> Iterator[None]:
        """Inside `with` it, what is deleted is overwritten with zeros, whole pages too."""
        self.all("PRAGMA secure_delete = ON")
        try:
            yield
        finally:
            self.all("PRAGMA secure_delete = FAST")

    def empty_log(self, wait_ms: int) -> bool:
        """Bring the write-ahead log into the file and cut it to nothing, so that no older page lies on in it.

        Args:
            wait_ms: longest wait for those who still read from it; those who write wait meanwhile.

        Returns:
            Whether it is empty now; not while somebody reads from it.

        Raises:
            StoreError: the disk failed.
        """
        before = self.one("PRAGMA busy_timeout")
        self.all(f"PRAGMA busy_timeout = {wait_ms}")
        try:
            return not self.one("PRAGMA wal_checkpoint(TRUNCATE)")
        except StoreError as error:
            if not error.retry or "locked" not in str(error):
                raise
            return False
        finally:
            self.all(f"PRAGMA busy_timeout = {before}")

    def close(self) -> None:
        """Close it. Safe to call twice."""
        self._connection.close()


class Transaction:
    """`with` it, everything inside is recorded together or not at all; whatever SQLite throws becomes a StoreError.

    A class, not a generator: it is entered for every decision, and this is half the price.
    """

    __slots__ = ("_connection", "_execute", "_path")

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._path = path

    def __enter__(self) -> None:
        try:
            self._execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise store_error(error, self._path) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._execute("COMMIT")
            except sqlite3.Error as failure:
                self._roll_back()
                raise store_error(failure, self._path) from failure
            return
        self._roll_back()
        if isinstance(error, sqlite3.Error):
            raise store_error(error, self._path) from error

    def _roll_back(self) -> None:
        # A full disk or an I/O error may have rolled back already.
        if self._connection.in_transaction:
            self._execute("ROLLBACK")
