"""Keeps the signed lists of bundles in the database, so that every copy of the control plane gives out the same.

Rules:
- Each copy works on files in its own folder, as a single control plane does; here they are brought up to date before
  they are read, and put into the database when they were written.
- Only the timestamp ever changes; all others have their version in their name. It is put last, so that what is there
  is always a whole repository.
- Whoever signs holds everybody's turn to write, so two copies never sign the same version.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import select

from cloud import tables
from cloud.blobs import write_durably
from cloud.store import CloudStore, upsert

TIMESTAMP = "timestamp.json"


class Shelf(Protocol):
    """Where the files are besides the folder."""

    def pull(self) -> None:
        """Bring the folder up to date."""
        ...

    @contextmanager
    def signing(self) -> Iterator[None]:
        """Let nobody else sign meanwhile; what was written into the folder is put away at the end."""
        ...


class FolderShelf:
    """Of a single control plane: the folder is all there is."""

    def pull(self) -> None:
        """Do nothing."""

    @contextmanager
    def signing(self) -> Iterator[None]:
        """Do nothing."""
        yield


class DatabaseShelf:
    """Of several copies."""

    def __init__(self, folder: Path, store: CloudStore) -> None:
        self._folder = folder
        self._store = store

    def pull(self) -> None:
        """Fetch what the folder lacks, the timestamp last."""
        files = tables.repository_files.c
        self._folder.mkdir(parents=True, exist_ok=True)
        have = {path.name for path in self._folder.glob("*.json")}
        with self._store.read() as connection:
            names = set(connection.execute(select(files.name)).scalars())
            wanted = sorted(names - have | names & {TIMESTAMP}, key=lambda name: name == TIMESTAMP)
            found = {
                row.name: row.data
                for row in connection.execute(select(files.name, files.data).where(files.name.in_(wanted)))
            }
        for name in wanted:
            place = self._folder / name
            if not place.exists() or place.read_bytes() != found[name]:
                write_durably(place, found[name])

    @contextmanager
    def signing(self) -> Iterator[None]:
        """Bring the folder up to date, have it changed, and put away what is new in it."""
        files = tables.repository_files.c
        with self._store.write() as connection:
            self.pull()
            yield
            known = set(connection.execute(select(files.name)).scalars()) - {TIMESTAMP}
            for path in sorted(self._folder.glob("*.json"), key=lambda path: path.name == TIMESTAMP):
                if path.name not in known:
                    upsert(connection, tables.repository_files, {"name": path.name, "data": path.read_bytes()})
