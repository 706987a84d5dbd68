"""The device's record on real disks: killed, full, damaged, shared, pruned."""

import hashlib
import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.errors import StoreError
from edge.retention import StoreLimits
from edge.rowtext import AnyRow
from edge.store import Store
from edge.wire.messages import Up, parse_message
from edge.wire.rows import EventRow, parse_row
from tests.clocks import HeldClock
from tests.rows import decision, outcome, telemetry


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "record.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path, clock=HeldClock(), durability="process") as made:
        yield made


def reopened(path: Path, **limits: Any) -> Store:
    return Store.open(path, clock=HeldClock(), durability="process", limits=StoreLimits(**limits))


def sequence(store: Store) -> list[int]:
    return [row.seq for row in store.rows(limit=10**9)]


# ── what is written is there ────────────────────────────────────────────────────────────────────────────────────


def test_rows_of_every_kind_are_numbered_from_one_and_come_back_as_they_were(store: Store) -> None:
    decided = store.append_decision(decision(), input_key="k", keep=None, wants_outcome=True)
    store.append_outcome(outcome(1, detail="ü"))
    made: list[AnyRow] = [
        decided,
        outcome(1, detail="ü", seq=2),
        store.append_event("bundle_promoted", boot_id="b", model="phone_glass", data={"from": None, "to": 2}),
        store.append_telemetry(telemetry()),
    ]
    assert [row.seq for row in made] == [1, 2, 3, 4]
    assert store.rows() == made
    assert store.rows(after=1, kind="outcome") == made[1:2]
    assert store.decision(1) == made[0]
    assert store.decision(2) is None


def test_seq_that_a_row_brings_is_replaced(store: Store) -> None:
    assert store.append_decision(decision(seq=77), input_key="k").seq == 1


def test_last_decisions_are_newest_first(store: Store) -> None:
    for name in "abc":
        row = store.append_decision(decision(name), input_key=name)
        store.append_outcome(outcome(row.seq))
    assert [row.input.name for row in store.last_decisions(2)] == ["c", "b"]


def test_key_is_seen_after_its_decision_and_only_at_its_station(store: Store) -> None:
    assert not store.seen("glass", "a.jpg")
    store.append_decision(decision(), input_key="a.jpg")
    assert store.seen("glass", "a.jpg")
    assert not store.seen("other", "a.jpg")


def test_same_key_decided_again_is_still_seen_once(store: Store) -> None:
    for _ in range(3):
        store.append_decision(decision(), input_key="live")
    store.append_decision(decision(), input_key=None)
    assert sequence(store) == [1, 2, 3, 4]


def test_key_that_is_not_unicode_is_seen(store: Store) -> None:
    key = os.fsdecode(b"teil-\xff\xfe.jpg")
    store.append_decision(decision(), input_key=key)
    assert store.seen("glass", key)


def test_action_is_pending_until_its_outcome_also_over_a_restart(store: Store, path: Path) -> None:
    for wants in (True, False, True):
        store.append_decision(decision(), input_key=None, wants_outcome=wants)
    store.append_outcome(outcome(1))
    store.close()
    with reopened(path) as again:
        assert again.pending_actions() == [3]


def test_incarnation_stays_with_the_file(store: Store, path: Path) -> None:
    with reopened(path) as again:
        assert again.incarnation == store.incarnation
    with Store.open(path.with_name("other.db"), clock=HeldClock()) as other:
        assert other.incarnation != store.incarnation


def test_meta_is_kept_and_replaced(store: Store, path: Path) -> None:
    assert store.get_meta("config_version") is None
    store.set_meta("config_version", "3")
    store.set_meta("config_version", "4")
    with reopened(path) as again:
        assert again.get_meta("config_version") == "4"


# ── rows that nobody could read are mended at the only way in ───────────────────────────────────────────────────


def test_number_that_is_not_finite_is_left_out_and_named(store: Store) -> None:
    row = decision(metrics={"sharpness": math.nan, "brightness": 0.5}, scores={"good": math.inf}, confidence=math.nan)
    store.append_decision(row, input_key="k")
    found = store.decision(1)
    assert found is not None
    assert found.metrics == {"brightness": 0.5}
    assert found.scores == {}
    assert found.confidence is None
    assert "metrics.sharpness" in (found.detail or "")


def test_text_that_is_too_long_is_cut(store: Store) -> None:
    store.append_decision(decision(detail="e" * 1_000_000, reason="model_error"), input_key="k")
    found = store.decision(1)
    assert found is not None
    assert found.detail is not None
    assert 100 < len(found.detail) < 10_000


def test_row_that_cannot_be_mended_is_refused_and_takes_no_number(store: Store) -> None:
    with pytest.raises(StoreError, match="bytes") as caught:
        store.append_event("grew", boot_id="b", data={f"k{i}": "x" * 100 for i in range(5000)})
    assert not caught.value.retry
    assert store.append_event("went_on", boot_id="b").seq == 1


def test_unreadable_telemetry_is_made_readable(store: Store) -> None:
    row = telemetry()
    row.histograms["broken"] = row.histograms["latency_ms.total"].model_copy(update={"edges": [math.nan]})
    with pytest.raises(StoreError, match="cannot be recorded"):
        store.append_telemetry(row)
    assert store.append_telemetry(telemetry()).seq == 1


# ── outbox ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_unsent_rows_make_a_message_that_the_other_side_reads(store: Store) -> None:
    store.append_decision(decision('quote " and ü'), input_key="k")
    store.append_outcome(outcome(1))
    rows = store.unsent(0)
    body = ",".join(row.body for row in rows)
    up = parse_message(f'{{"kind":"up","device":"d","incarnation":"{store.incarnation}","rows":[{body}]}}'.encode())
    assert isinstance(up, Up)
    assert up.rows == store.rows()


def test_only_the_control_planes_word_for_this_incarnation_frees_rows(store: Store) -> None:
    for _ in range(5):
        store.append_event("happened", boot_id="b")
    store.mark_stored("somebody-else", 5)
    assert len(store.unsent(0)) == 5
    store.mark_stored(store.incarnation, 3)
    assert [row.seq for row in store.unsent(0)] == [4, 5]
    store.mark_stored(store.incarnation, 2)
    assert store.stored_through() == 3
    assert [row.seq for row in store.unsent(4)] == [5]


def test_batches_are_bounded_by_rows_and_bytes_but_never_empty(store: Store) -> None:
    for _ in range(10):
        store.append_event("happened", boot_id="b", detail="x" * 1000)
    assert len(store.unsent(0, max_rows=4)) == 4
    assert len(store.unsent(0, max_bytes=3500)) == 3
    assert len(store.unsent(0, max_bytes=1)) == 1


def test_outbox_size_tells_rows_bytes_and_the_oldest(store: Store) -> None:
    assert store.outbox_size() == (0, 0, None)
    for at_ms in (30, 10, 20):
        store.append_decision(decision(at_ms=at_ms), input_key=None)
    rows, size, oldest = store.outbox_size()
    assert rows == 3
    assert 3 * 300 < size < 3 * 3000
    assert oldest == 10
    store.mark_stored(store.incarnation, 3)
    assert store.outbox_size() == (0, 0, None)


def test_older_copy_of_the_record_put_back_gives_no_number_twice(store: Store, path: Path, tmp_path: Path) -> None:
    for _ in range(3):
        store.append_event("happened", boot_id="b")
    store.mark_stored(store.incarnation, 3)
    store.close()
    shutil.copy(path, tmp_path / "old.db")
    with reopened(path) as later:
        for _ in range(4):
            later.append_event("happened", boot_id="b")
        incarnation = later.incarnation
    path.with_name("record.db-wal").unlink(missing_ok=True)
    shutil.copy(tmp_path / "old.db", path)
    with reopened(path) as old:
        old.mark_stored(incarnation, 7)
        assert old.rows(after=3)[0].seq == 8
        told = old.rows(after=3, kind="event")[0]
        assert isinstance(told, EventRow)
        assert (told.name, told.severity) == ("store_behind", "alarm")
        assert old.append_event("happened", boot_id="b").seq == 9


def test_rows_are_power_safe_before_they_are_sent(store: Store, path: Path) -> None:
    store.make_power_safe()
    store.append_event("happened", boot_id="b")
    assert path.with_name("record.db-wal").stat().st_size > 0
    store.make_power_safe()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.make_power_safe()


# ── kept inputs ─────────────────────────────────────────────────────────────────────────────────────────────────


def keep(store: Store, raw: bytes, *, upload: bool = True) -> str:
    store.append_decision(decision(raw=raw), input_key=None, keep=(raw, "image/jpeg"), upload=upload)
    return hashlib.sha256(raw).hexdigest()


def test_kept_input_comes_back_and_waits_until_it_is_uploaded(store: Store) -> None:
    digest = keep(store, b"picture")
    assert store.inputs.get(digest) == (b"picture", "image/jpeg")
    assert store.inputs.get("0" * 64) is None
    assert store.inputs.waiting() == 1
    upload = store.inputs.next()
    assert upload is not None
    assert (upload.digest, upload.size_bytes, upload.tries) == (digest, 7, 0)
    store.inputs.mark_uploaded(digest)
    assert store.inputs.next() is None
    assert store.inputs.get(digest) is not None


def test_same_bytes_twice_are_kept_and_sent_once(store: Store) -> None:
    digest = keep(store, b"picture")
    keep(store, b"picture")
    assert store.inputs.waiting() == 1
    store.inputs.mark_uploaded(digest)
    keep(store, b"picture")
    assert store.inputs.waiting() == 0


def test_input_that_is_refused_again_and_again_is_put_aside_behind_others(path: Path) -> None:
    with reopened(path, upload_refusals=2) as store:
        bad, good = keep(store, b"bad"), keep(store, b"good")
        assert not store.inputs.refuse(bad, "the control plane answered 415")
        upload = store.inputs.next()
        assert upload is not None
        assert upload.digest == good
        store.inputs.mark_uploaded(good)
        assert store.inputs.refuse(bad, "the control plane answered 415")
        assert store.inputs.next() is None
        assert store.inputs.get(bad) is not None


def test_wanted_inputs_are_queued_once_and_only_if_they_are_here(store: Store) -> None:
    digest = keep(store, b"picture", upload=False)
    assert store.inputs.waiting() == 0
    assert store.inputs.want([digest, "0" * 64]) == 1
    assert store.inputs.want([digest]) == 0
    assert store.inputs.waiting() == 1


# ── killed ──────────────────────────────────────────────────────────────────────────────────────────────────────

WRITER = r"""
import os, sys, threading
from pathlib import Path
from edge.clock import SystemClock
from edge.store import Store
from tests.rows import decision, outcome

def write(thread):
    store = Store.open(Path(sys.argv[1]), clock=SystemClock(), durability=sys.argv[2])
    number = store.last_seq() * 10
    while True:
        number += 1
        key = f"{thread}-{number}"
        raw = key.encode() * 50
        keep = (raw, "image/jpeg") if number % 3 == 0 else None
        row = store.append_decision(decision(key, raw=raw), input_key=key, keep=keep)
        os.write(1, f"{row.seq} {key}\n".encode())  # one write, so that the two threads' lines do not mix
        if number % 2:
            store.append_outcome(outcome(row.seq))
            store.mark_stored(store.incarnation, row.seq // 2)

for thread in range(2):
    threading.Thread(target=write, args=(thread,)).start()
"""


@pytest.mark.parametrize(("durability", "kills"), [("process", 8), ("power", 4)])
def test_killed_writers_lose_no_acknowledged_row_and_leave_no_hole(path: Path, durability: str, kills: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    told: dict[int, str] = {}
    for _ in range(kills):
        command = [sys.executable, "-c", WRITER, str(path), durability]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        lines = [child.stdout.readline()]
        threading.Timer(rng.uniform(0.0, 0.15), child.send_signal, [signal.SIGKILL]).start()
        lines += child.stdout.read().split("\n")[:-1]
        child.wait()
        child.stdout.close()
        told |= {int(seq): key for seq, key in (line.split() for line in lines if line.strip())}
        with reopened(path) as store:
            assert sequence(store) == list(range(1, store.last_seq() + 1))
    with reopened(path) as store:
        pending = set(store.pending_actions())
        done = {row.decision_seq for row in store.rows(kind="outcome", limit=10**9) if row.kind == "outcome"}
        decisions = {row.seq: row for row in store.rows(kind="decision", limit=10**9) if row.kind == "decision"}
        for seq, key in told.items():
            assert decisions[seq].input.name == key
            assert store.seen("glass", key)
        for seq, row in decisions.items():
            assert (seq in pending) != (seq in done)
            kept = store.inputs.get(row.input.digest)
            assert kept is None or hashlib.sha256(kept[0]).hexdigest() == row.input.digest
            assert (kept is not None) == (int(row.input.name.split("-")[1]) % 3 == 0)
    assert len(told) > kills


def test_several_writers_share_one_sequence_without_holes(path: Path) -> None:
    with reopened(path):
        pass
    numbers: list[int] = []

    def write(name: str) -> None:
        with reopened(path) as own:
            mine = [own.append_decision(decision(), input_key=f"{name}-{i}").seq for i in range(200)]
            assert mine == sorted(mine)
            numbers.extend(mine)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 801))


# ── full ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_full_disk_is_a_store_error_and_the_same_store_goes_on_when_there_is_room(small_disk: Path) -> None:
    with reopened(small_disk / "record.db") as store:
        store.append_event("began", boot_id="b")
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"b" * (shutil.disk_usage(small_disk).free - 64 * 1024))
        told = 1
        with pytest.raises(StoreError, match="no room") as caught:
            while True:
                told = store.append_decision(decision(), input_key=f"k{told}", keep=(b"x" * 900, "image/jpeg")).seq
        assert caught.value.retry
        assert "free space" in caught.value.hint
        for _ in range(3):
            with pytest.raises(StoreError):
                store.append_decision(decision(), input_key="again")
        assert sequence(store) == list(range(1, told + 1))
        ballast.unlink()
        assert store.append_decision(decision(), input_key="again").seq == told + 1
        assert not store.seen("glass", f"k{told}")


def test_full_disk_pruning_makes_room_from_what_the_control_plane_has(small_disk: Path) -> None:
    with reopened(small_disk / "record.db", low_disk_bytes=300_000, reserve_bytes=500_000) as store:
        store.prune()
        assert (small_disk / "record.db.reserve").exists()
        with pytest.raises(StoreError):
            while True:
                raw = random.randbytes(3000)
                store.append_decision(decision(raw=raw), input_key=None, keep=(raw, "image/jpeg"), wants_outcome=False)
                store.mark_stored(store.incarnation, store.last_seq())
                while upload := store.inputs.next():
                    store.inputs.mark_uploaded(upload.digest)
        told = store.last_seq()
        assert store.prune().uploaded_inputs > 3
        for _ in range(8):
            raw = random.randbytes(3000)
            store.append_decision(decision(raw=raw), input_key=None, keep=(raw, "image/jpeg"))
        assert store.last_seq() > told + 8
        assert store.outbox_size().rows >= 8


def test_disk_that_gets_full_while_nothing_can_be_sent_keeps_taking_decisions(small_disk: Path) -> None:
    kinds = []
    with reopened(small_disk / "record.db", low_disk_bytes=300_000, reserve_bytes=200_000) as store:
        for number in range(200):
            raw = random.randbytes(20_000)
            row = decision(raw=raw, reason="unsure" if number % 2 else None)
            store.append_decision(row, input_key=None, keep=(raw, "image/jpeg"), wants_outcome=False)
            dropped = store.prune()
            kinds += ["confident"] * dropped.confident_inputs + ["deferred"] * dropped.deferred_inputs
        assert store.outbox_size().rows >= 200
        decided = [row for row in store.rows(limit=10_000) if row.kind == "decision"]
    assert len(decided) == 200, "no decision is dropped for it"
    assert kinds[:5] == ["confident"] * 5 and "deferred" in kinds


# ── damaged ─────────────────────────────────────────────────────────────────────────────────────────────────────


def filled(path: Path, rows: int = 300) -> list[int]:
    with reopened(path) as store:
        for number in range(rows):
            store.append_decision(decision(f"{number}.jpg"), input_key=f"{number}")
        return sequence(store)


def events(store: Store) -> list[str]:
    return [row.name for row in store.rows(kind="event") if isinstance(row, EventRow)]


@pytest.mark.parametrize("damage", ["garbage", "header", "schema", "half", "middle"])
def test_damaged_record_is_kept_aside_and_a_new_one_says_so(path: Path, damage: str) -> None:
    filled(path)
    before = path.read_bytes()
    changed = {
        "garbage": random.Random(1).randbytes(len(before)),
        "header": b"\0" * 100 + before[100:],
        "schema": before[:100] + b"\xff" * 3996 + before[4096:],
        "half": before[: len(before) // 2],
        "middle": before[: len(before) // 2] + b"\xa5" * 8192 + before[len(before) // 2 + 8192 :],
    }[damage]
    path.write_bytes(changed)
    with reopened(path) as store:
        assert "store_replaced" in events(store)
        assert store.append_decision(decision(), input_key="new").seq == store.last_seq()
        incarnation = store.incarnation
    aside = [item for item in path.parent.iterdir() if ".damaged-" in item.name and item.suffix not in ("-wal", "-shm")]
    assert any(item.read_bytes() == changed for item in aside)
    with reopened(path) as again:
        assert again.incarnation == incarnation
        assert events(again).count("store_replaced") == 1


def test_flipped_byte_anywhere_never_keeps_the_device_from_starting(path: Path) -> None:
    filled(path, rows=60)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    before = path.read_bytes()
    # Byte 63 is the schema's version: a file of newer software is refused, not replaced.
    header = rng.sample([*range(63), *range(64, 100)], 30)
    places = [*header, *(rng.randrange(len(before)) for _ in range(20))]
    for place in places:
        for item in path.parent.iterdir():
            item.unlink()
        flipped = before[place] ^ rng.randrange(1, 256)
        print(f"byte {place}: {before[place]} → {flipped}")
        path.write_bytes(before[:place] + bytes([flipped]) + before[place + 1 :])
        for _ in range(2):
            with reopened(path) as store:
                store.append_decision(decision(), input_key="new")


def test_damage_met_while_running_is_said_and_mended_by_the_next_start(path: Path) -> None:
    with reopened(path) as store:
        for number in range(3000):
            store.append_decision(decision(f"{number}.jpg"), input_key=f"{number}")
    size = path.stat().st_size
    with reopened(path) as store:
        with path.open("r+b") as file:
            file.seek(8192)
            file.write(b"\xa5" * (size - 16384))
        with pytest.raises(StoreError, match="damaged") as caught:
            store.rows(limit=10**9)
        assert not caught.value.retry
        assert "restart" in caught.value.hint
    with reopened(path) as again:
        assert "store_replaced" in events(again)


def test_damaged_record_that_another_one_holds_is_not_moved_under_it(path: Path) -> None:
    filled(path)
    with reopened(path) as store:
        path.with_name("record.db.suspect").touch()
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * 8192)
        with reopened(path):
            assert not list(path.parent.glob("*.damaged-*"))
        store.close()
    with reopened(path) as store:
        assert "store_replaced" in events(store)


def test_move_of_a_damaged_record_that_was_cut_short_is_finished(path: Path) -> None:
    filled(path)
    wal = path.with_name("record.db-wal")
    wal.write_bytes(b"what was not in the file yet")
    aside = path.with_name("record.db.damaged-7")
    wal.replace(aside.with_name(aside.name + "-wal"))
    path.with_name("record.db.moving").write_text(aside.name)
    with reopened(path) as store:
        assert "store_replaced" in events(store)
    assert aside.exists()
    assert not path.with_name("record.db.moving").exists()


def test_empty_file_is_a_new_record(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.touch()
    with reopened(path) as store:
        assert store.append_decision(decision(), input_key="k").seq == 1


def test_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(StoreError):
        reopened(tmp_path / "data" / "record.db")


# ── read only ───────────────────────────────────────────────────────────────────────────────────────


def test_read_only_sees_what_the_daemon_writes_and_cannot_write(store: Store, path: Path) -> None:
    store.append_decision(decision(), input_key="k")
    with Store.open_read_only(path, clock=HeldClock()) as reader:
        assert len(reader.last_decisions(5)) == 1
        store.append_decision(decision(), input_key="l")
        assert len(reader.last_decisions(5)) == 2
        assert reader.outbox_size().rows == 2
        with pytest.raises(StoreError, match="readonly"):
            reader.set_meta("a", "b")
        store.append_decision(decision(), input_key="m")


def test_read_only_without_a_record_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no record") as caught:
        Store.open_read_only(tmp_path / "record.db", clock=HeldClock())
    assert "daemon" in caught.value.hint


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pruning_drops_stored_rows_only_oldest_first_and_tells(path: Path) -> None:
    with reopened(path, rows=100) as store:
        for number in range(300):
            store.append_decision(decision(), input_key=f"{number}", wants_outcome=False)
        assert store.prune().rows == 0
        store.mark_stored(store.incarnation, 150)
        assert store.prune().rows == 150
        assert sequence(store)[0] == 151
        assert "store_pruned" in events(store)
        assert store.append_decision(decision(), input_key="next").seq == 302
        assert not store.prune().any


def test_pruning_keeps_decisions_whose_action_is_pending(path: Path) -> None:
    with reopened(path, rows=10) as store:
        for number in range(100):
            store.append_decision(decision(), input_key=f"{number}", wants_outcome=number == 20)
        store.mark_stored(store.incarnation, 100)
        store.prune()
        assert sequence(store)[0] == 21


def test_pruning_empties_unsent_telemetry_without_a_hole_and_never_a_decision(path: Path) -> None:
    with reopened(path, unsent_telemetry_rows=10) as store:
        for number in range(50):
            store.append_telemetry(telemetry())
            store.append_decision(decision(), input_key=f"{number}", wants_outcome=False)
        assert store.prune().unsent_telemetry == 40
        assert sequence(store) == list(range(1, 102))
        rows = [parse_row(row.body) for row in store.unsent(0)]
        assert [row.kind for row in rows].count("decision") == 50
        assert [row.kind for row in rows].count("telemetry") == 10
        dropped = [row for row in rows if isinstance(row, EventRow) and row.name == "telemetry_dropped"]
        assert len(dropped) == 40
        assert dropped[0].station == "glass"


def test_pruning_drops_uploaded_inputs_before_waiting_ones(path: Path) -> None:
    with reopened(path, input_bytes=50_000) as store:
        digests = [keep(store, bytes([number]) * 10_000) for number in range(10)]
        for digest in digests[3:6]:
            store.inputs.mark_uploaded(digest)
        dropped = store.prune()
        assert (dropped.uploaded_inputs, dropped.unsent_inputs) == (3, 2)
        assert [store.inputs.get(digest) is not None for digest in digests] == [False] * 2 + [True] + [False] * 3 + [
            True
        ] * 4
        assert store.inputs.waiting() == 5


def test_pruning_forgets_the_oldest_seen_keys(path: Path) -> None:
    with reopened(path, seen_keys=100) as store:
        for number in range(200):
            store.append_decision(decision(), input_key=f"{number}")
        assert store.prune().seen_keys == 100
        assert not store.seen("glass", "99")
        assert store.seen("glass", "100")


def test_pruning_drops_stored_rows_by_age_and_neither_unsent_ones_nor_the_newest(path: Path) -> None:
    with reopened(path, row_age_days=1) as store:
        old_ms = store._clock.now_ms() - 2 * 86_400_000
        for number in range(20):
            row = decision().model_copy(update={"at_ms": old_ms})
            store.append_decision(row, input_key=f"{number}", wants_outcome=False)
        store.mark_stored(store.incarnation, 15)
        assert store.prune().rows == 15
        assert sequence(store)[0] == 16
        store.mark_stored(store.incarnation, store.last_seq())
        store.prune()
        assert sequence(store)[-1] == store.last_seq() >= 20
