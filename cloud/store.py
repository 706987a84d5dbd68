"""Opens the database and hands out connections: one writer at a time, readers free.

Rules:
- What differs between SQLite and PostgreSQL stands in `cloud.engines` and nowhere else.
- `write()` is one transaction: all of its block is kept, or nothing. Keep the block short and free of other IO.
- Nobody else writes during `write()`, whichever engine and however many copies: what it has read stays so.
- `append()` is for ingest, which several copies do side by side; never together with a `write()`.
- A commit is on disk when the block ends (see `cloud.engines`): the acknowledgement to devices rests on it.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any

from sqlalchemy import Connection, Engine, Table, inspect, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from cloud import audit, engines, tables
from cloud.engines import BUSY_TIMEOUT_MS, insert_new, upsert, upsert_many
from cloud.errors import ConfigError, UnavailableError

__all__ = ["BUSY_TIMEOUT_MS", "CloudStore", "insert_ignore", "upsert", "upsert_many"]

SCHEMA_LOCK = 0x11E51DD
"""Copies that start together make the schema one after the other."""
MORE_TABLES = ("cloud.telemetry.tables", "cloud.alerts.tables", "cloud.retraining.tables")
"""Modules whose tables belong to the schema besides `cloud.tables`."""


class CloudStore:
    """The control plane's database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_shared = engines.is_shared(engine)
        """Whether several copies may work on it."""
        self._reader, self._writer = engines.reading(engine), engines.writing(engine)
        self._lock = nullcontext() if self.is_shared else threading.RLock()

    @classmethod
    def open(cls, url: str) -> "CloudStore":
        """Open the database at a URL and create what is missing of the schema.

        Raises:
            ConfigError: the URL is not one, or its driver is not installed.
            UnavailableError: the database cannot be opened.
        """
        try:
            engine = engines.open_engine(url)
            _create_schema(engine)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            hint = "for example sqlite:////var/lib/lineside/cloud.sqlite, or postgresql://… with lineside[postgres]"
            raise ConfigError(f"store.url {_shown(url)!r}: {error}", hint=hint) from error
        except (SQLAlchemyError, OSError) as error:
            raise UnavailableError(f"cannot open the database at {_shown(url)}: {error}") from error
        return cls(engine)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one moment of the database."""
        with self._reader.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection in a transaction that is committed at the end of the block, or undone if it raises."""
        with self._lock, self._writer.begin() as connection:
            engines.take_turn(connection)
            yield connection

    @contextmanager
    def append(self) -> Iterator[Connection]:
        """Give the same for ingest: other copies may append at the same time, to other devices' rows."""
        with self._lock, self._writer.begin() as connection:
            engines.take_turn(connection, shared=True)
            yield connection

    def empty_log(self) -> bool:
        """Leave nothing of what was erased in the database's log; return whether that is done (else try again)."""
        with self._lock:
            return engines.empty_log(self.engine)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def insert_ignore(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert rows, leaving those alone whose key is already there; return how many were new."""
    return insert_new(connection, table, rows)


def _shown(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def _create_schema(engine: Engine) -> None:
    for module in MORE_TABLES:
        import_module(module)  # adds its tables to the schema
    with engines.writing(engine).begin() as connection:
        engines.one_after_the_other(connection, SCHEMA_LOCK)
        tables.metadata.create_all(connection)
        present = inspect(connection).get_multi_columns()
        for table in tables.metadata.sorted_tables:
            have = {column["name"] for column in present[None, table.name]}
            for column in table.columns:
                if column.name not in have:  # a later release added it; it is nullable, so old rows need no value
                    kind = column.type.compile(engine.dialect)
                    connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")
        audit.prepare(connection)
