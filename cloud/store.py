"""Opens the database and hands out connections: one writer at a time on SQLite, readers free.

Rules:
- What differs between SQLite and PostgreSQL stands here and nowhere else.
- `write()` is one transaction: all of its block is kept, or nothing. Keep the block short and free of other IO.
- A commit is on disk when `write()` returns (WAL, synchronous=FULL): the acknowledgement to devices rests on it.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json
from sqlalchemy import Connection, Engine, Table, create_engine, event, inspect, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from cloud import audit, tables
from cloud.errors import ConfigError, UnavailableError

BUSY_TIMEOUT_MS = 10_000
"""How long a connection waits for another process (a backup, a person's shell) to let go of the file."""
EMPTY_LOG_WAIT_MS = 100
"""For readers, when the log is emptied: devices wait for their acknowledgements meanwhile."""
MORE_TABLES = ("cloud.telemetry.tables", "cloud.alerts.tables", "cloud.retraining.tables")
"""Modules whose tables belong to the schema besides `cloud.tables`."""
READERS = 40
"""As many connections as the web framework has worker threads."""


class CloudStore:
    """The control plane's database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writer = engine.execution_options(lineside_writer=True)
        self._lock = threading.RLock() if engine.dialect.name == "sqlite" else None

    @classmethod
    def open(cls, url: str) -> "CloudStore":
        """Open the database at a URL and create what is missing of the schema.

        Raises:
            ConfigError: the URL is not one, or its driver is not installed.
            UnavailableError: the database cannot be opened.
        """
        try:
            engine = _engine(url)
            _create_schema(engine)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            hint = "for example sqlite:////var/lib/lineside/cloud.sqlite"
            raise ConfigError(f"store.url {url!r}: {error}", hint=hint) from error
        except (SQLAlchemyError, OSError) as error:
            shown = make_url(url).render_as_string(hide_password=True)
            raise UnavailableError(f"cannot open the database at {shown}: {error}") from error
        return cls(engine)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one moment of the database."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection in a transaction that is committed at the end of the block, or undone if it raises."""
        if self._lock is None:
            with self._writer.begin() as connection:
                yield connection
        else:
            with self._lock, self._writer.begin() as connection:
                yield connection

    def empty_log(self) -> bool:
        """Leave nothing of what was erased in SQLite's write-ahead log; return whether that is done.

        Not while somebody reads from it: try again then. PostgreSQL does it by itself, with `VACUUM` and its archive.
        """
        if self._lock is None:
            return True
        with self._lock:
            connection = self.engine.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute(f"PRAGMA busy_timeout={EMPTY_LOG_WAIT_MS}")
                try:
                    busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                finally:
                    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
                return not busy
            except sqlite3.OperationalError:
                return False
            finally:
                connection.close()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def insert_ignore(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert rows, leaving those alone whose key is already there; return how many were new."""
    if not rows:
        return 0
    insert = _dialect(connection).insert(table).on_conflict_do_nothing()
    return max(connection.execute(insert, list(rows)).rowcount, 0)


def upsert(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert one row, or set the given columns of the one with the same primary key."""
    keys = [column.name for column in table.primary_key.columns]
    insert = _dialect(connection).insert(table).values(**row)
    changes = {name: value for name, value in row.items() if name not in keys}
    connection.execute(
        insert.on_conflict_do_update(index_elements=keys, set_=changes) if changes else insert.on_conflict_do_nothing()
    )


def _dialect(connection: Connection) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else sqlite


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_size=READERS, pool_pre_ping=True, **_JSON)
    if not parsed.database or parsed.database == ":memory:":
        raise ConfigError("store.url: expected an SQLite file, got a database in memory", hint="name a file")
    Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, pool_size=READERS, **_JSON)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _to_json(value: Any) -> str:
    """Return JSON that everybody reads: no infinities; half a character is an error."""
    return to_json(value, inf_nan_mode="null").decode()


_JSON: dict[str, Any] = {"json_serializer": _to_json, "json_deserializer": from_json}


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, see _begin_sqlite
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "cache_size=-16000",
        "wal_autocheckpoint=8000",
        "temp_store=MEMORY",
        "secure_delete=ON",  # what is erased on request must not lie on in what SQLite calls free
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: a reader that turns writer in mid-transaction would fail with SQLITE_BUSY.
    writes = connection.get_execution_options().get("lineside_writer", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _create_schema(engine: Engine) -> None:
    for module in MORE_TABLES:
        import_module(module)  # adds its tables to the schema
    tables.metadata.create_all(engine)
    present = inspect(engine)
    with engine.begin() as connection:
        for table in tables.metadata.sorted_tables:
            have = {column["name"] for column in present.get_columns(table.name)}
            for column in table.columns:
                if column.name not in have:  # a later release added it; it is nullable, so old rows need no value
                    kind = column.type.compile(engine.dialect)
                    connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")
        audit.prepare(connection)
