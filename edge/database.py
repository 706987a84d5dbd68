"""Opens the device's SQLite file: settings, schema, migrations, and what to do with a damaged one.

Rules:
- WAL, with `synchronous` FULL for durability `power` until the record is open (its user then syncs by itself, see
  `edge.groupsync`), and NORMAL for `process` (a commit survives a crash or kill of the process; a power cut may take
  back the last moments).
- A damaged file is kept aside as `NAME.damaged-<ms>` and a new one is begun: the device goes on. Files are only
  moved while no other connection is open, which a lock on `NAME.lock` tells. What can be salvaged is (`salvage`).
- What is deleted or shortened is overwritten within the pages that are written anyway (`secure_delete`), so that no
  text lies on in what SQLite calls free; whole pages that are freed are overwritten only where something is erased.
- The first to open a small file checks it page by page; a large one is checked only after an error made it suspect.
- A file written by newer software is refused and left as it is.
"""

import fcntl
import io
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from edge import setaside
from edge.errors import ConfigError, StoreError

SCHEMA_VERSION = 4
MAX_VERSION = 255
"""A higher schema version is no version of ours but a damaged number."""
BUSY_TIMEOUT_MS = 5000
"""A writer holds the lock for one short transaction; five seconds cover a card that stalls while it erases."""
FULL_CHECK_BYTES = 16 * 1024 * 1024
"""Up to this size a page-by-page check costs under 50 ms of the start."""
CACHE_KIB = 1024
"""Pages that one connection keeps; the working set is the end of one table."""

Durability = Literal["power", "process"]
_SYNCHRONOUS: dict[Durability, str] = {"power": "FULL", "process": "NORMAL"}
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True, slots=True)
class Opened:
    """An open database; `lock` holds a shared lock on `NAME.lock` while it is open."""

    connection: sqlite3.Connection
    lock: int
    damage: str
    """What was wrong with a predecessor that this opening put aside; empty for nothing."""
    salvage: Path | None
    """A damaged predecessor that was not salvaged yet; call `edge.setaside.salvaged` when it was."""


def open_database(path: Path, *, durability: Durability, now_ms: Callable[[], int]) -> Opened:
    """Open the file for reading and writing, creating, migrating or replacing it as needed.

    Raises:
        StoreError: the disk does not let it be opened, or it is damaged and in use elsewhere.
        ConfigError: it was written by newer software.
    """
    lock = _lock(path)
    try:
        connection, damage, salvage = _open_or_replace(path, durability, now_ms, lock)
    except sqlite3.Error as error:
        os.close(lock)
        raise store_error(error, path) from error
    except BaseException:
        os.close(lock)
        raise
    return Opened(connection, lock, damage, salvage)


def open_read_only(path: Path) -> sqlite3.Connection:
    """Open the file for reading only, also while a daemon writes to it; one of older software is read as it is.

    Raises:
        StoreError: there is none, or it cannot be read.
        ConfigError: it was written by newer software.
    """
    if not path.exists():
        raise StoreError(f"no record at {path}", hint="the daemon makes it at its first start", retry=False)
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        connection.text_factory = text
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        version = _version(connection)
    except sqlite3.Error as error:
        raise store_error(error, path) from error
    if not 1 <= version <= SCHEMA_VERSION:
        connection.close()
        if version < 1:
            raise StoreError(
                f"{path}: expected schema version {SCHEMA_VERSION} or lower, got {version}",
                hint="the daemon makes a new record as it starts",
            )
        raise ConfigError(f"{path}: expected schema version {SCHEMA_VERSION} or lower, got {version}")
    return connection


def store_error(error: sqlite3.Error, path: Path) -> StoreError:
    """Return what happened in the words of this project; damage also makes the file suspect for the next opening."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StoreError(f"no room to write to {path}", hint=f"free space on the disk that holds {path.parent}")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(f"{path} was locked for {BUSY_TIMEOUT_MS / 1000:g} s by another writer")
    if code in _DAMAGE:
        _mark_suspect(path)
        return StoreError(
            f"{path} is damaged: {error}",
            hint="restart the daemon: it keeps the file aside, saves what it can and begins a new one",
            retry=False,
        )
    return StoreError(f"{path}: {error}", hint=f"look at the disk that holds {path.parent}")


def _open_or_replace(
    path: Path, durability: Durability, now_ms: Callable[[], int], lock: int
) -> tuple[sqlite3.Connection, str, Path | None]:
    first = _try_exclusive(lock)
    damage = ""
    try:
        if first and setaside.moving(path):
            setaside.finish(path)
            damage = "it was being kept aside when the power was cut"
        try:
            connection = _open_checked(path, durability, check=first)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # a damaged text may be all that SQLite says
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _DAMAGE or not first:
                raise
            setaside.put_aside(path, now_ms())
            damage = str(error)
            connection = _open_checked(path, durability)
        return connection, damage, setaside.to_salvage(path) if first else None
    finally:
        fcntl.flock(lock, fcntl.LOCK_SH)


def _try_exclusive(lock: int) -> bool:
    """Return whether nobody else has the file open; whoever comes meanwhile waits."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(lock, fcntl.LOCK_SH)
        return False
    return True


def _open_checked(path: Path, durability: Durability, *, check: bool = False) -> sqlite3.Connection:
    if check:
        _check_header(path)
    connection = _connect(path, durability)
    try:
        if check and (setaside.suspect_mark(path).exists() or path.stat().st_size <= FULL_CHECK_BYTES):
            _check_pages(connection)
            setaside.suspect_mark(path).unlink(missing_ok=True)
        migrate(connection, path, scripts())
        if check:
            _check_schema(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path, durability: Durability) -> sqlite3.Connection:
    # check_same_thread is off so that a task may hand a slow call to a worker thread; Store's rule is one user.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000)
    connection.text_factory = text
    try:
        if connection.execute("PRAGMA page_count").fetchone()[0] == 0:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # asked for again later it would be a write
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute("PRAGMA secure_delete = FAST").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


@dataclass(frozen=True, slots=True)
class Scripts:
    """What makes a schema."""

    whole: str
    """Makes the newest version in an empty file."""
    steps: dict[int, str]
    """By the version that they lead to from the one before."""

    @property
    def newest(self) -> int:
        return max(self.steps)


def scripts() -> Scripts:
    """Return those of this version of the software."""
    package = resources.files("edge")
    steps = {v: (package / "migrations" / f"{v:04}.sql").read_text() for v in range(2, SCHEMA_VERSION + 1)}
    return Scripts((package / "schema.sql").read_text(), steps)


def text(data: bytes) -> str:
    """Return the text that SQLite holds, with a mark for what a failing disk made of a part of it."""
    # One text that a failing disk altered must not keep a whole batch from being read.
    return data.decode(errors="replace")


def migrate(connection: sqlite3.Connection, path: Path, scripts: Scripts) -> None:
    """Make the schema of an empty file, or bring an older one to the newest version, one transaction per version.

    Raises:
        ConfigError: the file's version is newer than the newest script.
        sqlite3.Error: the disk or the file does not allow it; the version before is still there.
    """
    if not _version(connection) and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise _damage("it has tables but no version")
    while (version := _version(connection)) != scripts.newest:
        if version > scripts.newest:
            raise ConfigError(
                f"{path}: expected schema version {scripts.newest} or lower, got {version}",
                hint="it was written by newer software: install that version again",
            )
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Another opener may have been faster.
            if _version(connection) == version:
                for statement in _statements(scripts.steps[version + 1] if version else scripts.whole):
                    connection.execute(statement)
                _begin_state(connection, version)
                connection.execute(f"PRAGMA user_version = {version + 1 if version else scripts.newest}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _begin_state(connection: sqlite3.Connection, version: int) -> None:
    if version == 0:
        connection.execute("INSERT INTO state (only_row, incarnation) VALUES (1, ?)", (uuid.uuid4().hex,))


def _check_header(path: Path) -> None:
    # SQLite calls a file of an unknown format read-only or unsupported, which looks like a matter of rights.
    with path.open("rb") if path.exists() else io.BytesIO() as file:
        header = file.read(100)
    if not header:
        return
    # https://www.sqlite.org/fileformat2.html#the_database_header
    known = header[:16] == b"SQLite format 3\0" and {*header[18:20]} <= {1, 2} and header[44:47] == b"\0\0\0"
    version = int.from_bytes(header[60:64])
    if not known or header[47] > 4 or version > MAX_VERSION:
        raise _damage("the header is not one of this record's")


def _check_pages(connection: sqlite3.Connection) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise _damage(found)


def _check_schema(connection: sqlite3.Connection) -> None:
    # A page check takes any text for a name; what the hot path needs must be there and must compile.
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        migrate(fresh, Path(":memory:"), scripts())
        if _names(fresh) != _names(connection):
            raise _damage("its tables are not those of this record")
    try:
        connection.execute("EXPLAIN INSERT INTO rows DEFAULT VALUES").close()
    except sqlite3.OperationalError as error:
        raise _damage(str(error)) from error


def _names(connection: sqlite3.Connection) -> list[tuple[str, str, str | None]]:
    # Names, not statements: SQLite's own versions word an altered table differently. One table is SQLite's own, and
    # stays behind in a record that version 1 began.
    return connection.execute(
        "SELECT s.type, s.name, c.name FROM sqlite_schema s LEFT JOIN pragma_table_xinfo(s.name) c "
        "WHERE s.name <> 'sqlite_sequence' ORDER BY 1, 2, c.cid"
    ).fetchall()


def _damage(found: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(found)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def in_use(path: Path) -> bool:
    """Return whether a daemon has the database at `path` open for writing."""
    try:
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _lock(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}", hint=f"look at {path.parent}") from error
    return descriptor


def _mark_suspect(path: Path) -> None:
    try:
        setaside.suspect_mark(path).touch()
    except OSError:
        return  # a disk that refuses this too is found at the next opening by the failing read itself
