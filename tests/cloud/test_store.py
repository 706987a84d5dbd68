"""The database: one writer, free readers, nothing half kept."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from cloud import tables
from cloud.errors import ConfigError, UnavailableError
from cloud.store import CloudStore, insert_ignore, upsert

ROW = {"device": "a", "incarnation": "i", "stored_through": 0, "first_seen_at_ms": 1}


def _open(folder: Path) -> CloudStore:
    return CloudStore.open(f"sqlite:///{folder / 'c.sqlite'}")


@pytest.fixture
def store(database: str) -> Iterator[CloudStore]:
    """An empty store on either engine."""
    made = CloudStore.open(database)
    yield made
    made.close()


def _count(store: CloudStore) -> int:
    with store.read() as connection:
        return int(connection.execute(select(func.count()).select_from(tables.streams)).scalar_one())


def test_block_that_raises_keeps_nothing(store: CloudStore) -> None:
    with pytest.raises(RuntimeError), store.write() as connection:
        insert_ignore(connection, tables.streams, [ROW])
        raise RuntimeError
    assert _count(store) == 0


def test_same_key_again_changes_nothing_and_is_counted(store: CloudStore) -> None:
    rows = [{**ROW, "device": name} for name in "abc"]
    with store.write() as connection:
        assert insert_ignore(connection, tables.streams, rows[:2]) == 2
        assert insert_ignore(connection, tables.streams, [{**row, "stored_through": 9} for row in rows]) == 1
        assert insert_ignore(connection, tables.streams, []) == 0
        found = connection.execute(select(tables.streams.c.stored_through).order_by(tables.streams.c.device))
        assert list(found.scalars()) == [0, 0, 9]


def test_upsert_sets_only_the_named_columns(store: CloudStore) -> None:
    with store.write() as connection:
        upsert(connection, tables.device_state, {"device": "a", "last_heard_at_ms": 1, "boot_id": "b", "online": True})
        upsert(connection, tables.device_state, {"device": "a", "last_heard_at_ms": 2})
        row = connection.execute(select(tables.device_state)).one()
    assert (row.last_heard_at_ms, row.boot_id, row.online) == (2, "b", True)


def test_writers_in_many_threads_lose_nothing(store: CloudStore) -> None:
    upsert_once(store)

    def count_up() -> None:
        for _ in range(25):
            with store.write() as connection:
                before = connection.execute(select(tables.streams.c.stored_through)).scalar_one()
                connection.execute(tables.streams.update().values(stored_through=before + 1))

    threads = [threading.Thread(target=count_up) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as connection:
        assert connection.execute(select(tables.streams.c.stored_through)).scalar_one() == 200


def test_two_processes_worth_of_stores_wait_for_each_other(database: str) -> None:
    first, second = CloudStore.open(database), CloudStore.open(database)
    upsert_once(first)
    begun, done = threading.Event(), threading.Event()

    def write_slowly() -> None:
        with first.write() as connection:
            connection.execute(tables.streams.update().values(stored_through=1))
            begun.set()
            done.wait(10)

    thread = threading.Thread(target=write_slowly)
    thread.start()
    begun.wait(10)
    threading.Timer(0.2, done.set).start()
    with second.write() as connection:  # begins only when the first has committed, and sees what it wrote
        assert connection.execute(select(tables.streams.c.stored_through)).scalar_one() == 1
    thread.join()
    first.close()
    second.close()


def test_reader_sees_one_moment_while_a_writer_commits(store: CloudStore) -> None:
    with store.read() as reading:
        before = reading.execute(select(func.count()).select_from(tables.streams)).scalar_one()
        upsert_once(store)
        after = reading.execute(select(func.count()).select_from(tables.streams)).scalar_one()
    assert (before, after, _count(store)) == (0, 0, 1)


def test_commit_is_flushed_to_disk_before_it_returns(tmp_path: Path) -> None:
    store = _open(tmp_path)
    with store.read() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2}
    store.close()


def test_database_of_an_older_release_gets_the_new_columns(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "c.sqlite") as old:
        old.execute("CREATE TABLE streams (device, incarnation, stored_through, first_seen_at_ms)")
        old.execute("INSERT INTO streams VALUES ('a', 'i', 7, 1)")
    old.close()
    store = _open(tmp_path)
    with store.read() as connection:
        row = connection.execute(select(tables.streams)).one()
    assert (row.stored_through, row.beyond) == (7, None)
    store.close()


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("sqlite://", ConfigError),
        ("nonsense", ConfigError),
        ("oracle+nothing://x", ConfigError),
        ("sqlite:////proc/nothing/c.sqlite", UnavailableError),
    ],
)
def test_database_that_cannot_be_used_is_a_clear_error(url: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        CloudStore.open(url)


def test_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "c.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(UnavailableError, match="not a database"):
        _open(tmp_path)


def upsert_once(store: CloudStore) -> None:
    """Put the one row there."""
    with store.write() as connection:
        insert_ignore(connection, tables.streams, [ROW])
