"""What is forgotten is nowhere in the files any more: not in rows, inputs, free pages, the log, or damaged copies."""

import hashlib
import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge.erasure import MAX_NAMED, Request
from edge.errors import StoreError
from edge.retention import StoreLimits
from edge.store import Store
from edge.wire.forgetting import ERASED, forgotten
from edge.wire.rows import (
    FORGOTTEN_EVENT,
    SERVER_ANSWERED_EVENT,
    SHADOW_DISAGREED_EVENT,
    DecisionRow,
    EventRow,
    parse_row,
)
from tests.clocks import HeldClock
from tests.rows import decision

MARK = "the-secret-that-somebody-said"
OTHER = "what-stays-for-all-to-read"
DAY_MS = 86_400_000


class Record:
    """A record in which texts and sounds of two stations are kept."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock = path, HeldClock()
        self.store = Store.open(path, clock=self.clock, durability="process")

    def say(self, words: str, *, station: str = "glass", number: int = 0, pad: int = 3000) -> DecisionRow:
        """Keep a sound and what was understood of it."""
        raw = f"{words} {number} ".encode() * (pad // len(words))
        row = decision(f"{number}.wav", raw=raw, station=station, text=words, reason="unsure", verdict="defer")
        row = row.model_copy(
            update={"at_ms": self.clock.now_ms(), "input": row.input.model_copy(update={"kept": True})}
        )
        key = f"{station}-{number}"
        return self.store.append_decision(row, input_key=key, keep=(raw, "audio/wav"), wants_outcome=False)

    def limit(self, **limits: Any) -> None:
        """Open it again with limits, and drop what is beyond."""
        self.store.close()
        set_limits = StoreLimits(low_disk_bytes=0, **limits)
        self.store = Store.open(self.path, clock=self.clock, durability="process", limits=set_limits)
        self.store.prune()

    def event(self, name: str, data: dict[str, Any], *, station: str = "glass", detail: str = "") -> EventRow:
        return self.store.append_event(name, boot_id="b", station=station, detail=detail, data=data)

    def forget(self, *decisions: int, before_ms: int | None = None, station: str | None = None) -> Any:
        done = self.store.forget(Request("asked by letter", decisions, before_ms, station))
        assert self.store.wipe()
        return done

    def on_disk(self, words: str) -> bool:
        return any(words.encode() in file.read_bytes() for file in self.path.parent.iterdir())

    def row(self, seq: int) -> Any:
        return next(row for row in self.store.rows(seq - 1, limit=1) if row.seq == seq)

    def proofs(self) -> list[EventRow]:
        events = [row for row in self.store.rows(kind="event", limit=10**6) if isinstance(row, EventRow)]
        return [row for row in events if row.name == FORGOTTEN_EVENT]


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    made = Record(tmp_path / "data" / "record.db")
    yield made
    made.store.close()


def answered(record: Record, row: DecisionRow, words: str) -> EventRow:
    data = {"decision_seq": row.seq, "verdict": "accept", "text": words, "digest": row.input.digest}
    return record.event(SERVER_ANSWERED_EVENT, data, detail=f"{row.input.name}: accept {words!r}")


def disagreed(record: Record, row: DecisionRow, words: str, digest: str | None = None) -> EventRow:
    texts = {"incumbent": words, "candidate": words.upper()}
    return record.event(SHADOW_DISAGREED_EVENT, {"decision_seq": row.seq, "texts": texts, "input": digest})


def test_everything_of_a_decision_is_gone_and_everything_else_stays(record: Record) -> None:
    mine, other = record.say(MARK), record.say(OTHER, number=1)
    raw = f"live {MARK}".encode() * 100
    live = hashlib.sha256(raw).hexdigest()
    record.store.keep_input(live, raw, "audio/wav", station="glass")
    events = [answered(record, mine, MARK), disagreed(record, mine, MARK, live)]
    others = [answered(record, other, OTHER), disagreed(record, other, OTHER)]
    assert record.on_disk(MARK)
    done = record.forget(mine.seq)
    assert (done.inputs, done.rows) == (2, 3)
    assert not record.on_disk(MARK) and not record.on_disk(MARK.upper())
    left = record.row(mine.seq)
    assert left.forgotten and left.text is None and not left.input.kept
    assert (left.verdict, left.scores, left.input.digest) == (mine.verdict, mine.scores, mine.input.digest)
    assert [record.row(event.seq).detail for event in events] == [ERASED, ERASED]
    assert [record.row(event.seq) for event in others] == others
    assert record.row(other.seq) == other and record.store.inputs.get(other.input.digest) is not None
    (proof,) = record.proofs()
    assert proof.data["count"] == 2 and set(proof.data["digests"]) == {mine.input.digest, live}
    assert set(proof.data["seqs"]) == {mine.seq, *(event.seq for event in events)}
    assert proof.data["why"] == "asked by letter" and proof.data["before_ms"] is None


def test_everything_before_a_moment_is_gone_of_one_station_or_of_all(record: Record) -> None:
    old = [record.say(MARK, station=station, number=n) for n, station in enumerate(("a", "b"))]
    late_answer_to = record.say(MARK, station="a", number=7)
    record.clock.forward(3600)
    moment = record.clock.now_ms()
    record.clock.forward(3600)
    young = record.say(OTHER, station="a", number=3)
    late = answered(record, late_answer_to, MARK)
    done = record.forget(before_ms=moment, station="a")
    assert (done.inputs, done.rows) == (2, 3)
    assert record.row(late.seq).detail == ERASED, "an answer that came later holds what was said before"
    assert record.on_disk(MARK) and record.row(old[1].seq) == old[1]
    assert record.row(young.seq) == young
    assert record.forget(before_ms=moment).inputs == 1
    assert not record.on_disk(MARK) and record.on_disk(OTHER)
    assert [(proof.data["before_ms"], proof.data["station"]) for proof in record.proofs()] == [
        (moment, "a"),
        (moment, None),
    ]


def test_same_content_is_forgotten_wherever_it_was_decided(record: Record) -> None:
    first, second = record.say(MARK), record.say(MARK, station="screw")
    assert first.input.digest == second.input.digest
    record.forget(first.seq)
    assert not record.on_disk(MARK)
    assert record.row(second.seq).forgotten and not record.row(second.seq).input.kept


def test_features_are_forgotten_as_pictures_are(record: Record) -> None:
    features = f"\x93NUMPY {MARK}".encode()
    row = decision(raw=b"never kept", at_ms=record.clock.now_ms())
    named = row.input.model_copy(update={"features": hashlib.sha256(features).hexdigest()})
    kept = record.store.append_decision(
        row.model_copy(update={"input": named}), input_key=None, keep=(features, "application/x-npy")
    )
    assert record.store.inputs.waiting() == 0 and record.on_disk(MARK)
    assert record.forget(kept.seq).inputs == 1
    assert not record.on_disk(MARK) and record.row(kept.seq).input.features is None


def test_what_was_dropped_before_lies_on_in_no_free_page(record: Record) -> None:
    for number in range(60):
        record.say(MARK, number=number, pad=30_000)
    last = record.say(OTHER, number=60)
    record.limit(input_bytes=1)
    with closing(sqlite3.connect(record.path)) as connection:
        connection.execute("DELETE FROM rows WHERE seq < 60")
        connection.commit()
    record.forget(before_ms=record.clock.now_ms() + 1)
    assert not record.on_disk(MARK)
    assert record.row(last.seq).forgotten


def test_row_that_was_damaged_on_disk_is_erased_too(record: Record) -> None:
    whole, damaged, mended = record.say(MARK), record.say(MARK, number=1), record.say(MARK, number=2)
    with closing(sqlite3.connect(record.path)) as connection:
        body = f'{{"kind":"decision","text":"{MARK}'
        connection.execute("UPDATE rows SET body = ? WHERE seq IN (?, ?)", (body, damaged.seq, mended.seq))
        connection.commit()
    assert record.store.mend_unsent() == 2
    with closing(sqlite3.connect(record.path)) as connection:
        connection.execute("UPDATE rows SET body = ? WHERE seq = ?", (body, damaged.seq))
        connection.commit()
    record.forget(before_ms=record.clock.now_ms() + 1)
    assert not record.on_disk(MARK)
    assert record.row(whole.seq).forgotten
    assert [record.row(row.seq).name for row in (damaged, mended)] == ["row_damaged", "row_damaged"]


def test_damaged_copies_of_the_record_are_removed_and_named(record: Record) -> None:
    row = record.say(MARK)
    record.store.make_power_safe()
    for ending in ("", "-wal"):
        copy = record.path.with_name(f"record.db.damaged-17{ending}")
        copy.write_bytes(record.path.with_name(f"record.db{ending}").read_bytes())
    done = record.forget(row.seq)
    assert done.copies == ["record.db.damaged-17"] and record.proofs()[0].data["copies"] == done.copies
    assert not list(record.path.parent.glob("*.damaged-*")) and not record.on_disk(MARK)


def test_damaged_copy_that_is_still_to_be_salvaged_stays(record: Record) -> None:
    copy = record.path.with_name("record.db.damaged-17")
    copy.write_bytes(b"not salvaged yet")
    record.path.with_name("record.db.salvage").write_text(copy.name)
    assert record.forget(record.say(MARK).seq).copies == []
    assert copy.exists()


def test_erasure_without_its_proof_does_not_happen(record: Record) -> None:
    row = record.say(MARK)
    with closing(sqlite3.connect(record.path)) as connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON rows WHEN NEW.kind = 'event' BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    with pytest.raises(StoreError, match="no"):
        record.store.forget(Request("asked", (row.seq,)))
    assert record.row(row.seq) == row and record.store.inputs.get(row.input.digest) is not None
    with closing(sqlite3.connect(record.path)) as connection:
        connection.execute("DROP TRIGGER refuse")
    record.forget(row.seq)
    assert not record.on_disk(MARK)


def test_log_that_somebody_reads_from_is_said_and_emptied_when_he_has_gone(record: Record) -> None:
    row = record.say(MARK)
    with closing(sqlite3.connect(record.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM rows").fetchone() == (1,)
        record.store.forget(Request("asked", (row.seq,)))
        assert not record.store.wipe()
        assert record.on_disk(MARK)
        record.say(OTHER, number=1)  # whoever decides goes on
    assert record.store.wipe()
    assert not record.on_disk(MARK)


def test_much_is_forgotten_in_many_short_transactions_that_all_prove_themselves(record: Record) -> None:
    number = MAX_NAMED + 150
    rows = [record.say(MARK, number=n, pad=100) for n in range(number)]
    large = [record.say(MARK, number=number + n, pad=3_000_000) for n in range(3)]
    done = record.forget(before_ms=record.clock.now_ms() + 1)
    assert done.inputs == done.rows == number + 3
    proofs = record.proofs()
    assert len(proofs) >= 3
    assert all(len(p.data["digests"]) <= MAX_NAMED and len(p.data["seqs"]) <= MAX_NAMED for p in proofs)
    named = [digest for proof in proofs for digest in proof.data["digests"]]
    assert sorted(named) == sorted(row.input.digest for row in [*rows, *large])
    assert sorted(seq for proof in proofs for seq in proof.data["seqs"]) == [row.seq for row in [*rows, *large]]
    assert [proof.data["before_ms"] is not None for proof in proofs] == [False] * (len(proofs) - 1) + [True]
    assert not record.on_disk(MARK)


def test_waiting_upload_of_a_forgotten_input_waits_no_more(record: Record) -> None:
    row = record.say(MARK)
    assert record.store.inputs.waiting() == 1
    record.forget(row.seq)
    assert record.store.inputs.waiting() == 0 and record.store.inputs.next() is None


def test_unsent_row_goes_up_without_its_text(record: Record) -> None:
    row = record.say(MARK)
    record.forget(row.seq)
    sent = record.store.unsent(0)
    assert not any(MARK in one.body for one in sent)
    assert [parse_row(one.body).seq for one in sent] == list(range(1, len(sent) + 1))


def test_number_whose_row_was_dropped_here_still_goes_up(record: Record) -> None:
    row = record.say(MARK)
    record.say(OTHER, number=1)
    with closing(sqlite3.connect(record.path)) as connection:
        connection.execute("DELETE FROM rows WHERE seq = ?", (row.seq,))
        connection.commit()
    assert record.forget(row.seq).inputs == 0
    assert record.proofs()[0].data["seqs"] == [row.seq]


def test_forgetting_a_row_twice_changes_nothing_more() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(50):
        row = decision(text=rng.choice([None, "said"]), reason=rng.choice([None, "unsure"]))
        row = row.model_copy(update={"input": row.input.model_copy(update={"kept": rng.random() < 0.5})})
        document = json.loads(row.model_dump_json(exclude_none=True))
        once = forgotten(document)
        assert forgotten(once) == once
        assert (once == document) == (row.text is None and not row.input.kept)
