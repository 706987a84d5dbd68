"""All in which SQLite and PostgreSQL differ: opening, taking turns, statements for many rows, tables only added to.

Rules:
- Nothing else asks which engine it is: tables and queries are SQLAlchemy Core and run on both.
- Writers take turns on both engines. On PostgreSQL that is an advisory lock, which ingest takes shared, so that several
  copies may ingest side by side while nobody changes anything else.
- A commit is on disk when it returns: SQLite's synchronous=FULL, PostgreSQL's synchronous_commit.
- Statements for many rows name each key once.
"""

import functools
import logging
import operator
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Connection,
    Engine,
    Float,
    Integer,
    String,
    Table,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite

from cloud.errors import ConfigError

log = logging.getLogger(__name__)

BUSY_TIMEOUT_MS = 10_000
"""How long a connection waits for another process (a backup, a person's shell, another copy) to let go."""
TURN_TIMEOUT_MS = 30_000
"""How long a writer of PostgreSQL waits for its turn. Turns are given in order, so whoever waits gets one; who gives up
early on a busy machine has to wait from the beginning, and may never get one."""
HUNG_TIMEOUT_MS = 60_000
"""After which PostgreSQL ends a transaction whose copy does nothing any more, and so its turn."""
CONNECT_TIMEOUT_S = 10
READERS = 40
"""As many connections as the web framework has worker threads."""
WRITERS_LOCK = 0x11E51DF
"""Of PostgreSQL's advisory locks: everybody's turn to write. `cloud.audit` and `cloud.seat` have the neighbours."""
EMPTY_LOG_WAIT_MS = 100
"""For readers, when the log is emptied: devices wait for their acknowledgements meanwhile."""

_TYPES: tuple[tuple[type[Any], str], ...] = (
    (BigInteger, "bigint"),
    (Integer, "integer"),
    (Float, "double precision"),
    (Boolean, "boolean"),
    (JSON, "json"),
    (String, "text"),
)
"""What a statement for many rows takes; rows with other columns go through SQLAlchemy."""


def open_engine(url: str) -> Engine:
    """Return the engine of a database's URL; no connection is made yet.

    Raises:
        ConfigError: it is not one that we can use.
        sqlalchemy.exc.ArgumentError, NoSuchModuleError, ModuleNotFoundError: it is no URL, or its driver is missing.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed.database, url)
    if parsed.get_backend_name() == "postgresql":
        return _open_postgresql(url)
    raise ConfigError(f"store.url: expected sqlite or postgresql, got {parsed.get_backend_name()!r}")


def is_shared(engine: Engine) -> bool:
    """Return whether several copies of the control plane may work on this database."""
    return engine.dialect.name == "postgresql"


def reading(engine: Engine) -> Engine:
    """Return the engine for readers: a connection sees one moment of the database."""
    if is_shared(engine):
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return engine


def writing(engine: Engine) -> Engine:
    """Return the engine for writers."""
    return engine.execution_options(lineside_writer=True)


def take_turn(connection: Connection, *, shared: bool = False) -> None:
    """Wait until nobody else writes; with `shared`, others who say so too may write at the same time."""
    if is_shared(connection.engine):
        lock = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        connection.exec_driver_sql(f"SELECT {lock}({WRITERS_LOCK})")


def one_after_the_other(connection: Connection, number: int) -> None:
    """Hold the lock of this number until the transaction ends; SQLite's writers are alone anyway."""
    if is_shared(connection.engine):
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})


def insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert rows, leaving those alone whose key is already there; return how many were new.

    One statement with one document on PostgreSQL, one that is repeated inside the driver on SQLite: a third of what
    SQLAlchemy's own insert of many rows costs, and on PostgreSQL half of what arrays for `unnest` cost in the driver.
    """
    if not rows:
        return 0
    columns = _columns(table, rows)
    if columns is None:
        insert = _dialect(connection).insert(table).on_conflict_do_nothing()
        return max(connection.execute(insert, list(rows)).rowcount, 0)
    return _many(connection, _inserting(connection.dialect.name, table, columns, None), table, columns, rows)


def upsert_many(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *, added: Sequence[str] = ()
) -> None:
    """Insert rows, or set the given columns of those with the same primary key; columns in `added` are added to.

    Args:
        connection: in a transaction.
        table: its primary key tells rows apart.
        rows: all with the same columns, each key once.
        added: columns of numbers that are summed up instead of replaced.
    """
    if not rows:
        return
    columns = _columns(table, rows)
    assert columns is not None, "rows with the same columns, of types that both engines take"
    _many(connection, _inserting(connection.dialect.name, table, columns, tuple(added)), table, columns, rows)


def upsert(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert one row, or set the given columns of the one with the same primary key."""
    keys = [column.name for column in table.primary_key.columns]
    insert = _dialect(connection).insert(table).values(**row)
    changes = {name: value for name, value in row.items() if name not in keys}
    connection.execute(
        insert.on_conflict_do_update(index_elements=keys, set_=changes) if changes else insert.on_conflict_do_nothing()
    )


def only_add_to(connection: Connection, table: str, saying: str) -> None:
    """Have the database refuse to change or remove a row of this table from now on."""
    for statement in _triggers(connection.dialect.name, table, saying):
        connection.exec_driver_sql(statement)


def is_only_added_to(connection: Connection, table: str) -> bool:
    """Return whether that is so."""
    query = (
        "SELECT 1 FROM pg_trigger WHERE tgname = :name"
        if is_shared(connection.engine)
        else "SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name = :name"
    )
    name = f"{table}_no_change" if is_shared(connection.engine) else f"{table}_no_update"
    return connection.execute(text(query), {"name": name}).first() is not None


def empty_log(engine: Engine) -> bool:
    """Leave nothing of what was erased in SQLite's write-ahead log; return whether that is done.

    Not while somebody reads from it: try again then. PostgreSQL does it by itself, with `VACUUM` and its archive.
    """
    if is_shared(engine):
        return True
    connection = engine.raw_connection()
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


def _dialect(connection: Connection) -> Any:
    return postgresql if is_shared(connection.engine) else sqlite


def _to_json(value: Any) -> str:
    """Return JSON that everybody reads: no infinities; half a character is an error."""
    return to_json(value, inf_nan_mode="null").decode()


_JSON: dict[str, Any] = {"json_serializer": _to_json, "json_deserializer": from_json}


def _open_postgresql(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.drivername == "postgresql":  # as everybody writes it; SQLAlchemy would take the older psycopg2
        parsed = parsed.set(drivername="postgresql+psycopg")
    settings = {
        "synchronous_commit": "on",
        "lock_timeout": TURN_TIMEOUT_MS,
        "idle_in_transaction_session_timeout": HUNG_TIMEOUT_MS,
    }
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    query = {"connect_timeout": str(CONNECT_TIMEOUT_S), **parsed.query}
    query["options"] = f"{query.get('options', '')} {options}".strip()
    engine = create_engine(parsed.set(query=query), pool_size=READERS, pool_pre_ping=True, **_JSON)
    event.listen(engine, "first_connect", _check_postgresql)
    return engine


def _check_postgresql(connection: Any, _record: object) -> None:
    if connection.execute("SHOW fsync").fetchone()[0] == "off":
        log.warning("this PostgreSQL runs with fsync=off: what is acknowledged to devices does not survive a power cut")
    connection.rollback()


def _open_sqlite(path: str | None, url: str) -> Engine:
    if not path or path == ":memory:":
        raise ConfigError("store.url: expected an SQLite file, got a database in memory", hint="name a file")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, pool_size=READERS, **_JSON)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


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


def _columns(table: Table, rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...] | None:
    """Return the columns that all rows have, or None if they differ or need what only SQLAlchemy does."""
    names = rows[0].keys()
    if any(row.keys() != names for row in rows):
        return None
    left = [column for column in table.columns if column.name not in names]
    if any(column.default is not None for column in left):
        return None
    known = tuple(kind for kind, _ in _TYPES)
    return tuple(names) if all(isinstance(table.c[name].type, known) for name in names) else None


def _many(
    connection: Connection, statement: str, table: Table, columns: tuple[str, ...], rows: Sequence[Mapping[str, Any]]
) -> int:
    if is_shared(connection.engine):
        return max(connection.exec_driver_sql(statement, (_to_json(rows),)).rowcount, 0)
    return max(connection.exec_driver_sql(statement, _tuples(table, columns, rows)).rowcount, 0)


def _tuples(table: Table, columns: tuple[str, ...], rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Return the rows in the order of `_ordered`."""
    plain = [name for name in columns if not isinstance(table.c[name].type, JSON)]
    documents = [name for name in columns if name not in plain]
    pick = operator.itemgetter(*plain) if len(plain) > 1 else lambda row: (row[plain[0]],)
    if not documents:
        return [pick(row) for row in rows]
    return [pick(row) + tuple(None if row[name] is None else _to_json(row[name]) for name in documents) for row in rows]


def _ordered(table: Table, columns: tuple[str, ...]) -> list[str]:
    """Return the columns with documents last."""
    return sorted(columns, key=lambda name: isinstance(table.c[name].type, JSON))


@functools.lru_cache(maxsize=256)
def _inserting(engine: str, table: Table, columns: tuple[str, ...], added: tuple[str, ...] | None) -> str:
    """Return the statement; with `added` None rows that are there stay as they are."""
    ordered = _ordered(table, columns)
    names = ", ".join(map(_quoted, ordered))
    into = f"INSERT INTO {table.name} ({names})"
    if engine == "postgresql":
        types = {name: next(kind for of, kind in _TYPES if isinstance(table.c[name].type, of)) for name in ordered}
        given = ", ".join(f"{_quoted(name)} {types[name]}" for name in ordered)
        into = f"{into} SELECT {names} FROM json_to_recordset(%s::json) AS given({given})"  # noqa: S608  (our own names)
    else:
        into = f"{into} VALUES ({', '.join('?' * len(ordered))})"
    if added is None:
        return f"{into} ON CONFLICT DO NOTHING"
    keys = [column.name for column in table.primary_key.columns]
    sets = [
        f"{_quoted(name)} = {f'{table.name}.{_quoted(name)} + ' if name in added else ''}excluded.{_quoted(name)}"
        for name in columns
        if name not in keys
    ]
    return f"{into} ON CONFLICT ({', '.join(map(_quoted, keys))}) DO UPDATE SET {', '.join(sets)}"


def _quoted(name: str) -> str:
    return f'"{name}"'


def _triggers(engine: str, table: str, saying: str) -> tuple[str, ...]:
    if engine != "postgresql":
        return tuple(
            f"CREATE TRIGGER IF NOT EXISTS {table}_no_{action} BEFORE {action} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{saying}'); END"
            for action in ("update", "delete")
        )
    function = f"{table}_only_added_to()"
    return (
        f"CREATE OR REPLACE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{saying}'; END $$",
        f"CREATE OR REPLACE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {function}",
        f"CREATE OR REPLACE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {function}",
    )
