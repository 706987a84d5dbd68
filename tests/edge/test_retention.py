"""What goes first when the record is full or its time is over, what never goes, and that all of it is counted."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge import retention
from edge.dropping import order_of
from edge.retention import LAST_ROWS, StoreLimits
from edge.store import Store
from edge.wear import DROP_FIRST, Droppable
from edge.wire.rows import LATENCY_EDGES_MS, DecisionRow, EventRow, Histogram
from tests.clocks import HeldClock
from tests.rows import decision, outcome, telemetry

PICTURE = 20_000
DAY_S = 86_400.0


class Record:
    """A record with limits; what is kept in it has names."""

    def __init__(self, path: Path, **limits: Any) -> None:
        self.path, self.clock = path, HeldClock()
        self.limits = StoreLimits(reserve_bytes=4096, low_disk_bytes=0, **limits)
        self.store = Store.open(path, clock=self.clock, durability="process", limits=self.limits)
        self.digests: dict[str, str] = {}

    def limited(self, **limits: Any) -> Store:
        """Open the same record with other limits."""
        self.store.close()
        self.limits = StoreLimits(reserve_bytes=4096, low_disk_bytes=0, **limits)
        self.store = Store.open(self.path, clock=self.clock, durability="process", limits=self.limits)
        return self.store

    def keep(self, name: str, kind: str = "confident", *, station: str = "glass", uploaded: bool = False) -> None:
        raw = hashlib.sha256(name.encode()).digest() * (PICTURE // 32)
        self.digests[name] = digest = hashlib.sha256(raw).hexdigest()
        if kind == "disagreement":
            self.store.keep_input(digest, raw, "image/png", station=station)
        else:
            reason = "unsure" if kind == "deferred" else None
            row = decision(name, raw=raw, station=station, reason=reason, at_ms=self.clock.now_ms())
            self.store.append_decision(row, input_key=name, keep=(raw, "image/png"), wants_outcome=False)
        if uploaded:
            self.store.inputs.mark_uploaded(digest)

    def left(self) -> set[str]:
        return {name for name, digest in self.digests.items() if self.store.inputs.get(digest) is not None}

    def contents(self) -> dict[str, int]:
        """How much there is of each kind that may go."""
        found = kinds(self.left())
        windows = len(self.store.rows(kind="telemetry", limit=10_000))
        return {**found, "unsent telemetry": windows} if windows else found

    def used_bytes(self) -> int:
        with closing(sqlite3.connect(self.path)) as c:
            pages, free = (c.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        return int(pages - free) * 4096

    def events(self, name: str) -> list[EventRow]:
        return [row for row in self.store.rows(kind="event", limit=10_000) if getattr(row, "name", "") == name]  # type: ignore[misc]


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    made = Record(tmp_path / "record.db")
    yield made
    made.store.close()


def fill(record: Record) -> None:
    """Two of each kind, sent and unsent, the more precious ones older; telemetry and decisions beside them."""
    for uploaded in (False, True):
        for kind in ("deferred", "disagreement", "confident"):
            for number in range(2):
                record.keep(f"{'sent' if uploaded else 'unsent'} {kind} {number}", kind, uploaded=uploaded)
                record.clock.forward(1)
    # As large as that of a station with a dozen metrics.
    bins = Histogram(edges=LATENCY_EDGES_MS, counts=[1_000_000] * (len(LATENCY_EDGES_MS) + 1))
    for _ in range(80):
        record.store.append_telemetry(telemetry(histograms={f"latency_ms.{step}": bins for step in "abcdef"}))


def kinds(names: set[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        found[name.rpartition(" ")[0]] = found.get(name.rpartition(" ")[0], 0) + 1
    return found


ORDERS: list[tuple[Droppable, ...]] = [
    DROP_FIRST,
    ("deferred_inputs", "telemetry"),
    ("confident_inputs", "deferred_inputs", "disagreement_inputs", "telemetry"),
    (),
]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "-".join(order) or "none")
def test_what_the_cloud_has_goes_before_what_only_the_device_has_and_both_in_the_order_of_the_settings(
    record: Record, order: tuple[Droppable, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SLACK", 1.0)
    fill(record)
    gone: dict[str, None] = {}
    before, total = record.contents(), record.used_bytes()
    while total > 0:
        total -= PICTURE // 2
        record.limited(total_bytes=total, drop_first=order).prune()
        now = record.contents()
        gone |= dict.fromkeys(kind for kind in sorted(before) if now.get(kind, 0) < before[kind])
        before = now
    kinds_in_order = [kind.removesuffix("_inputs") for kind in order_of(order)]
    sent = [f"sent {kind}" for kind in kinds_in_order if kind != "telemetry"]
    assert [*gone] == sent + [f"unsent {kind}" for kind in kinds_in_order]
    assert before == {}


def test_unsent_decisions_outcomes_and_events_stay_when_nothing_else_is_left_and_it_is_told_once(
    record: Record,
) -> None:
    for number in range(300):
        row = record.store.append_decision(decision(f"{number}"), input_key=f"{number}")
        record.store.append_outcome(outcome(row.seq))
    record.keep("picture", "deferred")
    for _ in range(3):
        record.limited(total_bytes=100_000)
        dropped = record.store.prune()
    assert dropped.beyond_bytes > 0
    rows = record.store.rows(limit=10_000)
    assert sum(isinstance(row, DecisionRow) for row in rows) == 301
    assert sum(row.kind == "outcome" for row in rows) == 300
    assert record.left() == set()
    (told,) = record.events("store_beyond_limit")
    assert told.severity == "alarm" and told.data["limit_bytes"] == 100_000
    record.limited(total_bytes=10_000_000).prune()
    assert len(record.events("store_within_limit")) == 1 and len(record.events("store_beyond_limit")) == 1


def test_stored_rows_go_before_anything_unsent_but_the_last_ones_stay(record: Record) -> None:
    for number in range(3000):
        record.store.append_decision(decision(f"{number}"), input_key=None, wants_outcome=False)
    record.keep("unsent", "confident")
    record.store.mark_stored(record.store.incarnation, 3000)
    before = record.used_bytes()
    record.limited(total_bytes=before // 2, rows=10**6).prune()
    assert record.left() == {"unsent"}
    assert record.used_bytes() <= before // 2
    assert LAST_ROWS <= len(record.store.rows(limit=10_000)) < 2600


def test_file_itself_gets_small_again(record: Record) -> None:
    for number in range(200):
        record.keep(f"{number}", uploaded=True)
    record.limited(total_bytes=500_000).prune()
    assert record.path.stat().st_size <= 500_000
    assert record.used_bytes() <= 500_000


def test_damaged_predecessors_go_first(record: Record) -> None:
    copy = record.path.with_name("record.db.damaged-17")
    copy.write_bytes(b"x" * 300_000)
    copy.with_name(copy.name + "-wal").write_bytes(b"x" * 1000)
    record.keep("sent", uploaded=True)
    record.limited(total_bytes=200_000)
    assert record.store.prune().damaged_copies == 1
    assert not list(record.path.parent.glob("*.damaged-*")) and record.left() == {"sent"}


def test_bytes_of_inputs_go_in_the_order_of_the_settings_too(record: Record) -> None:
    fill(record)
    record.limited(input_bytes=PICTURE * 5 + 100, drop_first=("deferred_inputs",)).prune()
    assert kinds(record.left()) == {"unsent disagreement": 2, "unsent confident": 2, "unsent deferred": 1}


def test_what_two_stations_keep_goes_with_the_more_precious_use(record: Record) -> None:
    record.keep("shared", "confident")
    record.keep("shared", "deferred", station="screw")
    record.clock.forward(1)
    record.keep("newer", "confident")
    record.keep("newest", "disagreement")
    record.limited(input_bytes=PICTURE * 2 + 100).prune()
    assert record.left() == {"shared", "newest"}


# ── how long ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_station_has_its_own_time(record: Record) -> None:
    record.keep("a", station="a")
    record.keep("b", station="b", uploaded=True)
    record.keep("c", station="c")
    record.clock.forward(3 * DAY_S)
    record.keep("young", station="a")
    dropped = record.limited(keep_days={"a": 2, "b": 1, "c": None}).prune()
    assert record.left() == {"c", "young"}
    assert (dropped.expired_inputs, dropped.uploaded_inputs, dropped.unsent_inputs) == (2, 1, 1)
    assert record.store.inputs.waiting() == 2


def test_what_nobody_knows_the_station_of_stays_as_short_as_the_shortest(record: Record) -> None:
    record.keep("gone station", station="removed")
    record.clock.forward(3 * DAY_S)
    record.limited(keep_days={"a": 7, "b": 2, "c": None}).prune()
    assert record.left() == set()


def test_limit_of_the_device_holds_where_the_station_asks_for_longer(record: Record) -> None:
    record.keep("a", station="a")
    record.clock.forward(3 * DAY_S)
    record.limited(keep_days={"a": 30}, input_age_days=2).prune()
    assert record.left() == set()


def test_content_that_two_stations_keep_stays_for_the_longer_one(record: Record) -> None:
    record.keep("shared", station="a")
    record.keep("shared", station="b")
    record.clock.forward(3 * DAY_S)
    assert not record.limited(keep_days={"a": 1, "b": 9}).prune().any
    assert record.left() == {"shared"}
    record.clock.forward(8 * DAY_S)
    record.store.prune()
    assert record.left() == set()


def test_what_is_kept_again_begins_anew(record: Record) -> None:
    record.keep("part")
    record.clock.forward(3 * DAY_S)
    record.keep("part")
    record.clock.forward(1 * DAY_S)
    record.limited(keep_days={"glass": 2}).prune()
    assert record.left() == {"part"}


def test_nothing_of_what_expired_is_left_in_the_files(record: Record) -> None:
    record.keep("expired")
    record.clock.forward(3 * DAY_S)
    record.keep("young")
    marks = {name: hashlib.sha256(name.encode()).digest() for name in ("expired", "young")}
    assert on_disk(record, marks["expired"])
    record.limited(keep_days={"glass": 2}).prune()
    assert not on_disk(record, marks["expired"]) and on_disk(record, marks["young"])


def test_damaged_predecessors_grow_no_older_than_what_is_kept(record: Record) -> None:
    now_ms = record.clock.now_ms()
    for age_days in (1, 3):
        (record.path.parent / f"record.db.damaged-{now_ms - age_days * 86_400_000}").write_bytes(b"pictures")
    assert record.limited(keep_days={"glass": 2}).prune().damaged_copies == 1
    assert [path.name for path in record.path.parent.glob("*.damaged-*")] == [
        f"record.db.damaged-{now_ms - 86_400_000}"
    ]


def on_disk(record: Record, content: bytes) -> bool:
    return any(content in path.read_bytes() for path in record.path.parent.glob("record.db*"))


# ── counted ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_dropped_is_counted_for_good_and_told(record: Record) -> None:
    fill(record)
    record.limited(input_bytes=PICTURE * 9 + 100).prune()
    record.limited(input_bytes=PICTURE * 5 + 100, unsent_telemetry_rows=20).prune()
    assert record.store.dropped() == {
        "dropped": {
            "confident_inputs": 3,
            "deferred_inputs": 2,
            "disagreement_inputs": 2,
            "telemetry": 60,
            "unsent_inputs": 1,
        },
        "left_out": {},
    }
    told = record.events("store_pruned")
    assert [event.data["uploaded_inputs"] for event in told] == [3, 3]
    assert [event.data["confident_inputs"] for event in told] == [2, 1]
    assert [event.severity for event in told] == ["info", "warning"]
    record.limited().prune()
    assert record.store.dropped()["dropped"]["telemetry"] == 60
