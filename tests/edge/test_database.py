"""The record's schema: a record of every older version is brought forward whole, and becomes one of this version."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge.database import SCHEMA_VERSION, Scripts, migrate, scripts
from edge.errors import ConfigError
from edge.store import Store
from edge.wire.rows import DecisionRow, EventRow, TelemetryRow
from tests.clocks import HeldClock
from tests.rows import decision, outcome

RECORDS = Path(__file__).parent / "records"
"""A record of each older version, as its software wrote it: decisions of two stations with their inputs, one of them
uploaded, pending actions, one row that was damaged on disk."""
OLDER = sorted(int(path.stem) for path in RECORDS.glob("*.sql"))
KEPT = {number: f"picture {number}".encode() * 3 for number in range(6)}


def old_record(path: Path, version: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript((RECORDS / f"{version:04}.sql").read_text())
        assert connection.execute("PRAGMA user_version").fetchone() == (version,)
    return path


def opened(path: Path) -> Store:
    return Store.open(path, clock=HeldClock(), durability="process")


@pytest.fixture(params=OLDER)
def upgraded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with opened(old_record(tmp_path / "record.db", request.param)) as store:
        yield store


def schema_of(path: Path) -> dict[str, str]:
    """Return each table's, index's and trigger's statement, without comments, quotes and spaces."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'").fetchall()
    return {name: re.sub(r'--[^\n]*|\s|"', "", sql or "") for name, sql in found}


def test_there_is_a_record_of_every_older_version() -> None:
    assert list(range(1, SCHEMA_VERSION)) == OLDER


@pytest.mark.parametrize("version", OLDER)
def test_record_of_every_older_version_gets_the_schema_of_a_new_one(tmp_path: Path, version: int) -> None:
    old, new = old_record(tmp_path / "old.db", version), tmp_path / "new.db"
    opened(old).close()
    opened(new).close()
    assert schema_of(old) == schema_of(new)
    for path in (old, new):
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
            assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_schema_file_is_what_a_new_record_holds(tmp_path: Path) -> None:
    opened(tmp_path / "new.db").close()
    with closing(sqlite3.connect(tmp_path / "plain.db")) as connection:
        connection.executescript(scripts().whole)
    assert schema_of(tmp_path / "plain.db") == schema_of(tmp_path / "new.db")


def test_upgraded_record_has_everything_that_was_in_it(upgraded: Store) -> None:
    rows = upgraded.rows(limit=100)
    assert [row.seq for row in rows] == list(range(1, 15))
    decisions = [row for row in rows if isinstance(row, DecisionRow)]
    assert [row.input.name for row in decisions] == [f"{number}.jpg" for number in range(6)]
    assert [upgraded.inputs.get(row.input.digest) for row in decisions] == [
        (raw, "image/jpeg") for raw in KEPT.values()
    ]
    assert sum(isinstance(row, TelemetryRow) for row in rows) == 1
    assert isinstance(rows[-1], EventRow) and rows[-1].name == "row_damaged"
    assert upgraded.incarnation == "0123456789abcdef0123456789abcdef"
    assert upgraded.stored_through() == 3 and upgraded.inputs.waiting() == 5
    assert (
        upgraded.pending_actions() == [12, 14] and upgraded.seen("glass", "4.jpg") and upgraded.seen("screw", "5.jpg")
    )
    assert upgraded.get_meta("config_version") == "7"


def test_upgraded_record_goes_on(upgraded: Store) -> None:
    upgraded.append_outcome(outcome(12))
    assert upgraded.append_decision(decision(), input_key="k", keep=(b"new", "image/jpeg")).seq == 16
    assert upgraded.pending_actions() == [14, 16] and upgraded.seen("glass", "k")


def test_upgraded_record_knows_for_whom_its_inputs_are_kept(upgraded: Store, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "record.db")) as connection:
        found = connection.execute(
            "SELECT station, kind, count(*) FROM keepers JOIN inputs USING (digest) GROUP BY 1, 2 ORDER BY 1, 2"
        ).fetchall()
    assert found == [
        ("glass", "confident_inputs", 2),
        ("glass", "deferred_inputs", 3),
        ("screw", "confident_inputs", 1),
    ]


def test_input_whose_decision_was_dropped_before_the_upgrade_has_a_keeper_all_the_same(tmp_path: Path) -> None:
    path = old_record(tmp_path / "record.db", 3)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM rows WHERE seq <= 2")
    with opened(path), closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT kind, count(*) FROM keepers WHERE station = ''").fetchall() == [
            ("deferred_inputs", 1)
        ]


def test_version_1_that_had_dropped_its_newest_rows_gives_no_number_twice(tmp_path: Path) -> None:
    path = old_record(tmp_path / "record.db", 1)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM rows WHERE seq > 10")
    with opened(path) as store:
        assert store.append_event("happened", boot_id="b").seq == 15


@pytest.mark.parametrize("version", OLDER)
def test_older_record_can_be_read_as_it_is(tmp_path: Path, version: int) -> None:
    path = old_record(tmp_path / "record.db", version)
    with Store.open_read_only(path, clock=HeldClock()) as store:
        assert len(store.last_decisions(20)) == 6
        assert store.inputs.get(store.last_decisions(2)[0].input.digest) is not None
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (version,)


def test_migrations_go_forward_one_by_one_and_keep_what_is_there(tmp_path: Path) -> None:
    path = old_record(tmp_path / "record.db", 1)
    steps = {
        2: "-- a comment; with a semicolon\nCREATE TABLE extra (a TEXT);\nINSERT INTO extra VALUES ('x;y');\n",
        3: "ALTER TABLE extra ADD COLUMN b TEXT DEFAULT 'z';",
        **{version: f"CREATE TABLE extra_{version} (a TEXT);" for version in range(4, SCHEMA_VERSION + 2)},
    }
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, path, Scripts("not needed", steps))
        assert connection.execute("SELECT a, b FROM extra").fetchall() == [("x;y", "z")]
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (14,)
    with pytest.raises(ConfigError, match=f"expected schema version {SCHEMA_VERSION} or lower") as caught:
        opened(path)
    assert "newer" in caught.value.hint
    with pytest.raises(ConfigError, match=f"expected schema version {SCHEMA_VERSION} or lower"):
        Store.open_read_only(path, clock=HeldClock())


def test_migration_that_fails_leaves_the_version_before(tmp_path: Path) -> None:
    path = old_record(tmp_path / "record.db", 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        steps = {2: "CREATE TABLE extra (a TEXT);\nCREATE TABLE rows (a TEXT);\n"}
        with pytest.raises(sqlite3.OperationalError):
            migrate(connection, path, Scripts("not needed", steps))
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'extra'").fetchone() == (0,)


def test_upgrade_that_was_cut_short_goes_on_at_the_next_opening(tmp_path: Path) -> None:
    path = old_record(tmp_path / "record.db", 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, path, Scripts("not needed", {2: scripts().steps[2]}))
    opened(path).close()
    opened(tmp_path / "new.db").close()
    assert schema_of(path) == schema_of(tmp_path / "new.db")
