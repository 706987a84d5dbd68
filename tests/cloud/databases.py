"""Databases for tests: SQLite in the test's folder, or one PostgreSQL for the session, emptied before each test."""

from functools import cache
from pathlib import Path

import psycopg
import pytest

from benchmarks.servers import NotInstalledError, Postgres
from cloud.store import CloudStore
from tests.cloud.blank import blank_sqlite

ENGINES = ("sqlite", "postgresql")
ON_BOTH = (
    "test_store",
    "test_ingest",
    "test_together",
    "test_fleet",
    "test_registry",
    "test_rollouts",
    "test_conductor",
    "test_evidence",
    "test_review",
    "test_people",
    "test_audit",
    "test_seat",
    "test_enrolment",
    "test_onsite",
)
"""Modules of tests/cloud whose tests run on both engines; the others do not reach into the database."""
EMPTY = """
DO $$ DECLARE one record; BEGIN
  SET LOCAL session_replication_role = replica;
  FOR one IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
    EXECUTE 'DELETE FROM ' || quote_ident(one.tablename);
  END LOOP;
  FOR one IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' LOOP
    PERFORM setval(quote_ident(one.sequencename), 1, false);
  END LOOP;
END $$
"""


def empty_postgresql() -> str:
    """Return the URL of a PostgreSQL database with our tables and nothing in them; skip where there is none."""
    server = _server()
    if server is None:
        pytest.skip("PostgreSQL is not installed (Debian package: postgresql)")
    with psycopg.connect(server.url("lineside"), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'lineside' "
            "AND pid <> pg_backend_pid()"
        )  # what an earlier test has left open
        connection.execute(EMPTY)
    return server.url("lineside")


def url_for(engine: str, folder: Path) -> str:
    """Return the URL of an empty database."""
    return empty_postgresql() if engine == "postgresql" else f"sqlite:///{blank_sqlite(folder / 'c.sqlite')}"


def close() -> None:
    """End the server, if one was started."""
    if _server.cache_info().currsize and (server := _server()) is not None:
        server.close()
    _server.cache_clear()


@cache
def _server() -> Postgres | None:
    try:
        server = Postgres()
    except NotInstalledError:
        return None
    CloudStore.open(server.create("lineside")).close()
    return server
