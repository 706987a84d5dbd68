"""The log of changes: it is only ever added to, and whoever alters it all the same is found out."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError, IntegrityError
from typer.testing import CliRunner

from cloud import audit, tables
from cloud.__main__ import app
from cloud.errors import InvalidError
from cloud.store import CloudStore
from tests.cloud.world import World

ROWS = 8


def add(store: CloudStore, count: int, *, who: str = "ada") -> None:
    for number in range(count):
        with store.write() as connection:
            data = {"device": f"box-{number}", "share": float("inf")}
            audit.record(connection, at_ms=1000 + number, who=who, what="device_revoked", why="ä", data=data, after=[1])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with some rows, closed."""
    path = tmp_path / "cloud.sqlite"
    with opened(path) as store:
        add(store, ROWS)
    return path


@contextmanager
def opened(path: Path) -> Iterator[CloudStore]:
    store = CloudStore.open(f"sqlite:///{path}")
    try:
        yield store
    finally:
        store.close()


def verdict(path: Path, *expected: audit.Head) -> audit.Verdict:
    with opened(path) as store, store.read() as connection:
        return audit.verify(connection, expected)


def behind_its_back(path: Path, *statements: str) -> None:
    """Do what somebody does who has the file: triggers are only an obstacle."""
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TRIGGER audit_log_no_update")
        connection.execute("DROP TRIGGER audit_log_no_delete")
        for statement in statements:
            connection.execute(statement)


def test_log_that_nobody_touched_is_whole_and_its_head_stands_for_it(path: Path) -> None:
    found = verdict(path)
    assert (found.rows, found.faults, found.head.number) == (ROWS, [], ROWS)
    with opened(path) as store:
        add(store, 1)
    assert verdict(path, found.head).faults == []


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET who = 'bob'", "DELETE FROM audit_log"])
def test_database_refuses_to_change_or_remove_rows(path: Path, statement: str) -> None:
    with opened(path) as store, store.write() as connection, pytest.raises((IntegrityError, DatabaseError)) as refused:
        connection.exec_driver_sql(statement)
    assert "only ever added to" in str(refused.value)
    assert verdict(path).faults == []


@pytest.mark.parametrize(
    ("statements", "fault"),
    [
        (["UPDATE audit_log SET who = 'bob' WHERE id = 3"], "row 3: altered"),
        (["UPDATE audit_log SET why = '' WHERE id = 8"], "row 8: altered"),
        (["UPDATE audit_log SET data = '{}' WHERE id = 1"], "row 1: altered"),
        (["UPDATE audit_log SET at_ms = at_ms + 1 WHERE id = 5"], "row 5: altered"),
        (["UPDATE audit_log SET after = NULL WHERE id = 5"], "row 5: altered"),
        (["DELETE FROM audit_log WHERE id = 4"], "row 4: removed"),
        (["DELETE FROM audit_log WHERE id BETWEEN 2 AND 4"], "row 2 to 4: removed"),
        (["DELETE FROM audit_log WHERE id = 1"], "row 1: removed"),
        (
            ["DELETE FROM audit_log WHERE id = 4", "UPDATE audit_log SET id = id - 1 WHERE id > 4"],
            "row 4: does not follow the row before it",
        ),
    ],
)
def test_whoever_alters_the_file_is_found_out(path: Path, statements: list[str], fault: str) -> None:
    behind_its_back(path, *statements)
    assert fault in verdict(path).faults


def test_end_that_was_cut_off_shows_against_a_head(path: Path) -> None:
    head = verdict(path).head
    behind_its_back(path, f"DELETE FROM audit_log WHERE id > {ROWS - 2}")
    assert verdict(path).faults == []  # a chain alone cannot show it
    assert verdict(path, head).faults == [f"row {ROWS}: was there, and the log ends before it"]


def test_log_that_was_written_anew_shows_against_a_head(path: Path) -> None:
    head = verdict(path).head
    path.unlink()
    with opened(path) as store:
        add(store, ROWS, who="bob")
    assert verdict(path).faults == []
    assert verdict(path, head).faults == [f"row {ROWS}: is not the one that was there"]


def test_log_of_an_older_release_is_sealed_once_and_goes_on(path: Path) -> None:
    behind_its_back(path, *(f"ALTER TABLE audit_log DROP COLUMN {name}" for name in ("previous", "digest", "before")))
    with opened(path) as store:
        add(store, 1)
    found = verdict(path)
    assert (found.rows, found.faults) == (ROWS + 1, [])


def test_change_that_is_undone_leaves_no_gap(path: Path) -> None:
    class UndoneError(Exception):
        pass

    with opened(path) as store:
        with pytest.raises(UndoneError), store.write() as connection:
            audit.record(connection, at_ms=1, who="ada", what="device_revoked")
            raise UndoneError
        add(store, 1)
    assert verdict(path).faults == [] and verdict(path).rows == ROWS + 1


def test_head_file_keeps_the_newest_and_says_what_it_cannot_read(tmp_path: Path) -> None:
    file = audit.HeadFile(tmp_path)
    assert file.read() is None
    head = audit.Head(3, "ab" * 32)
    file.keep(head)
    assert file.read() == head and (tmp_path / audit.HEAD_FILE).stat().st_mode & 0o077 == 0
    (tmp_path / audit.HEAD_FILE).write_text("3:ab\n")
    with pytest.raises(InvalidError, match="expected NUMBER:DIGEST"):
        file.read()


def test_changes_say_what_was_before_and_after(world: World) -> None:
    world.enrol("box-1")
    world.services.enrolment.revoke("box-1", who="anna", why="scrapped")
    row = world.rows(tables.audit_log)[-1]
    assert (row.before, row.after) == ({"revoked": False}, {"revoked": True})


@pytest.fixture
def run(world: World) -> Callable[..., tuple[int, str]]:
    """Run `lineside-cloud audit` on the world's folder and database."""
    file = world.folder / "cloud.toml"
    file.write_text(
        f"[store]\ndata_dir = {json.dumps(str(world.config.data_dir))}\nurl = {json.dumps(world.config.store.url)}\n"
    )
    world.enrol("box-1")
    world.services.enrolment.revoke("box-1", who="anna", why="scrapped")

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["audit", *arguments, "--config", str(file)])
        return result.exit_code, result.output

    return run


def test_command_lists_who_did_what_and_why(run: Callable[..., tuple[int, str]]) -> None:
    code, told = run("list")
    assert code == 0
    assert "anna" in told and "device_revoked" in told and "scrapped" in told and "revoked False → revoked True" in told
    assert "anna" not in run("list", "--what", "claim_created")[1]


def test_command_verifies_against_heads_and_says_what_is_wrong(run: Callable[..., tuple[int, str]]) -> None:
    code, told = run("verify")
    assert code == 0 and "3 rows, no faults; head 3:" in told
    head = told.split("head ")[1].strip()
    assert run("verify", "--expect", head)[0] == 0
    code, told = run("verify", "--expect", f"3:{'0' * 64}")
    assert code == 1 and "row 3: is not the one that was there" in told
    assert run("verify", "--expect", "nonsense")[0] == 2


def test_command_says_where_there_is_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["audit", "verify", "--data-dir", str(tmp_path / "none")])
    assert result.exit_code == 4 and not (tmp_path / "none").exists()
