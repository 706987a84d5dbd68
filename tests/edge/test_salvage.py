"""What a new record takes over from a damaged one."""

import hashlib
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge.retention import StoreLimits
from edge.store import Store
from edge.wire.rows import DecisionRow, EventRow, OutcomeRow
from tests.clocks import HeldClock
from tests.rows import decision, outcome

ROWS = 400


def opened(path: Path) -> Store:
    return Store.open(path, clock=HeldClock(), durability="process", limits=StoreLimits())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "record.db"
    with opened(path) as store:
        for number in range(ROWS):
            raw = f"picture {number}".encode()
            keep = (raw, "image/jpeg") if number % 4 == 0 else None
            kept = decision(f"{number}.jpg", raw=raw).input.model_copy(update={"kept": keep is not None})
            row = store.append_decision(decision(input=kept), input_key=f"{number}.jpg", keep=keep)
            if number % 2:
                store.append_outcome(outcome(row.seq))
    return path


def damage(path: Path, first: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(first)
        file.write(b"\xa5" * size)


def names(store: Store) -> list[str]:
    return [row.input.name for row in store.rows(kind="decision", limit=10**6) if isinstance(row, DecisionRow)]


def test_salvaged_inputs_keep_their_station_and_use(path: Path) -> None:
    features = b"\x93NUMPY features"
    with opened(path) as store:
        unsure = decision("u", raw=b"u", station="screw", reason="unsure")
        kept = unsure.input.model_copy(update={"kept": True})
        store.append_decision(unsure.model_copy(update={"input": kept}), input_key="u", keep=(b"u", "image/jpeg"))
        named = unsure.input.model_copy(update={"features": hashlib.sha256(features).hexdigest()})
        row = decision("f", raw=b"f").model_copy(update={"input": named})
        store.append_decision(row, input_key="f", keep=(features, "application/x-npy"))
    damage(path, path.stat().st_size // 2 // 4096 * 4096, 4096)
    with opened(path) as store, closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT station, kind, count(*) FROM keepers GROUP BY 1, 2 ORDER BY 1, 2").fetchall()
        assert [row[:2] for row in found] == [("glass", "confident_inputs"), ("screw", "deferred_inputs")]
        assert connection.execute(
            "SELECT count(*) FROM inputs WHERE digest NOT IN (SELECT digest FROM keepers)"
        ).fetchone() == (0,)
        assert named.features is not None and store.inputs.get(named.features) == (features, "application/x-npy")
        queued = connection.execute("SELECT count(*) FROM uploads WHERE digest = ?", (named.features,)).fetchone()
        assert queued == (0,), "features stay on the device"


def test_damage_in_one_place_costs_only_what_lay_there(path: Path) -> None:
    size = path.stat().st_size
    with opened(path) as store:
        store.mark_stored(store.incarnation, 60)
        before = store.incarnation
        old = {row.seq: row for row in store.rows(limit=10**6)}
    damage(path, size // 2 // 4096 * 4096, 8192)
    with opened(path) as store:
        rows = store.rows(limit=10**6)
        assert [row.seq for row in rows] == list(range(1, store.last_seq() + 1))
        taken = {row.model_extra["salvaged_from"]["seq"]: row for row in rows if row.model_extra}
        assert len(taken) > 0.8 * (len(old) - 60)
        assert min(taken) > 60, "what the control plane has is not sent again"
        for seq, row in taken.items():
            assert row.model_extra is not None
            assert row.model_extra["salvaged_from"] == {"incarnation": before, "seq": seq}
            if isinstance(row, DecisionRow):
                assert row.input == getattr(old[seq], "input", None)
                kept = store.inputs.get(row.input.digest)
                assert kept is None or hashlib.sha256(kept[0]).hexdigest() == row.input.digest
            if isinstance(row, OutcomeRow):
                of, was = store.decision(row.decision_seq), old[seq]
                assert isinstance(was, OutcomeRow)
                assert of is not None
                assert of.model_extra is not None
                assert of.model_extra["salvaged_from"]["seq"] == was.decision_seq
        assert store.outbox_size().rows == len(rows)
        assert store.pending_actions()
        (told,) = [row for row in rows if isinstance(row, EventRow) and row.name == "rows_salvaged"]
        assert told.data["rows"] == len(taken)


def test_salvage_happens_once(path: Path) -> None:
    damage(path, path.stat().st_size // 2 // 4096 * 4096, 4096)
    with opened(path) as store:
        count = store.last_seq()
    with opened(path) as store:
        assert store.last_seq() == count
        assert store.seen("glass", "0.jpg")


def test_header_lost_leaves_nothing_to_salvage_and_the_device_goes_on(path: Path) -> None:
    damage(path, 0, 4096)
    with opened(path) as store:
        (told,) = [row for row in store.rows(kind="event") if isinstance(row, EventRow) and row.name == "rows_salvaged"]
        assert not told.data.get("rows")
        assert store.append_decision(decision(), input_key="new").seq == store.last_seq()
    with opened(path) as store:
        assert sum(row.name == "rows_salvaged" for row in store.rows(kind="event") if isinstance(row, EventRow)) == 1


def test_damage_anywhere_keeps_the_device_going_and_invents_no_row(path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    whole = path.read_bytes()
    with opened(path) as store:
        good = set(names(store))
    for _ in range(12):
        for item in path.parent.iterdir():
            item.unlink()
        path.write_bytes(whole)
        page = rng.randrange(1, len(whole) // 4096) * 4096
        damage(path, page + rng.randrange(4000), rng.choice([1, 16, 4096]))
        with opened(path) as store:
            assert {name for name in names(store) if "\ufffd" not in name} <= good
            assert store.append_event("went_on", boot_id="b").seq == store.last_seq()


def test_cut_before_the_salvage_is_made_up_for_at_the_next_start(path: Path) -> None:
    aside = path.with_name("record.db.damaged-1")
    path.replace(aside)
    path.with_name("record.db.salvage").write_text(aside.name)
    with opened(path) as store:
        assert len(names(store)) == ROWS
        assert not path.with_name("record.db.salvage").exists()


def test_input_whose_bytes_do_not_match_is_not_taken_over(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE inputs SET bytes = x'00' WHERE rowid = 1")
    aside = path.with_name("record.db.damaged-1")
    path.replace(aside)
    path.with_name("record.db.salvage").write_text(aside.name)
    with opened(path) as store:
        assert store.inputs.waiting() == ROWS // 4 - 1


def test_row_whose_text_was_altered_is_left_out_and_counted(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute('UPDATE rows SET body = replace(body, \'"kind":"decision"\', \'"kind":"x"\') WHERE seq = 1')
    aside = path.with_name("record.db.damaged-1")
    path.replace(aside)
    path.with_name("record.db.salvage").write_text(aside.name)
    with opened(path) as store:
        (told,) = [row for row in store.rows(kind="event") if isinstance(row, EventRow) and row.name == "rows_salvaged"]
        assert told.data["unreadable_rows"] == 1
        assert len(names(store)) == ROWS - 1
