"""What a device forgets is forgotten at the control plane: real rows of a real record, the real ingest, its files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from cloud import tables
from cloud.ingest import Incoming
from cloud.review import Reviews
from edge.wire.forgetting import ERASED
from tests.cloud.serving import serving
from tests.cloud.world import World, incoming, up
from tests.edge.test_erasure import MARK, OTHER, Record, answered, disagreed
from tests.rows import decision


class Plant:
    """A control plane with a device that has a record of its own."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder / "cloud")
        self.tokens = {name: self.world.enrol(name).token for name in ("box-1", "box-2")}
        self.record = Record(folder / "device" / "record.db")
        self.http: httpx.Client

    def batch(self, after: int = 0) -> Incoming:
        """What the device would send now, from a row on."""
        rows = [json.loads(row.body) for row in self.record.store.unsent(after)]
        return up("box-1", rows, incarnation=self.record.store.incarnation)

    def send(self) -> int:
        """Send what is not stored yet; return how far it is stored."""
        through = self.world.take(self.batch()).get("box-1", 0)
        self.record.store.mark_stored(self.record.store.incarnation, through)
        return through

    def put(self, digest: str, content: bytes, device: str = "box-1") -> int:
        headers = {"Authorization": f"Bearer {self.tokens[device]}", "Content-Type": "audio/wav"}
        return self.http.put(f"/v1/inputs/{digest}", content=content, headers=headers).status_code

    def upload(self) -> None:
        """Send every input that waits."""
        while (waiting := self.record.store.inputs.next()) is not None:
            found = self.record.store.inputs.get(waiting.digest)
            assert found is not None
            assert self.put(waiting.digest, found[0]) in (200, 201)
            self.record.store.inputs.mark_uploaded(waiting.digest)

    def here(self, words: str) -> bool:
        """Whether words stand in any of the control plane's files."""
        folder = self.world.config.data_dir
        return any(words.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())

    def events(self) -> list[dict[str, Any]]:
        return [dict(row.body) for row in self.world.rows(tables.events)]

    def audits(self) -> list[Any]:
        return [row for row in self.world.rows(tables.audit_log) if row.what == "inputs_forgotten"]


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    with serving(made.world.services) as client:
        made.http = client
        yield made
    made.record.store.close()
    made.world.close()


def test_uploaded_sound_and_texts_of_a_decision_are_erased_and_it_stands_in_the_audit_log(plant: Plant) -> None:
    row, other = plant.record.say(MARK), plant.record.say(OTHER, number=1)
    answered(plant.record, row, MARK)
    disagreed(plant.record, row, MARK)
    answered(plant.record, other, OTHER)
    plant.upload()
    plant.send()
    assert plant.here(MARK) and plant.http.get(f"/v1/inputs/{row.input.digest}").status_code == 200
    plant.record.forget(row.seq)
    assert plant.send() == plant.record.store.last_seq()
    assert not plant.here(MARK) and not plant.here(MARK.upper()) and plant.here(OTHER)
    assert plant.http.get(f"/v1/inputs/{row.input.digest}").status_code == 404
    assert plant.http.get(f"/v1/inputs/{other.input.digest}").status_code == 200
    stored = {one.seq: one for one in plant.world.rows(tables.decisions)}
    assert stored[row.seq].body["forgotten"] and "text" not in stored[row.seq].body
    assert (stored[row.seq].input_kept, stored[row.seq].needs_review) == (False, False)
    assert stored[row.seq].body["scores"] == row.scores
    assert stored[other.seq].body["text"] == OTHER and stored[other.seq].input_kept
    assert [event["detail"] for event in plant.events()].count(ERASED) == 2
    (audit,) = plant.audits()
    assert (audit.who, audit.why, audit.data["inputs"], audit.data["rows"]) == ("box-1", "asked by letter", 1, 3)
    assert Reviews(plant.world.services.store, plant.world.clock).waiting() == 1


def test_everything_before_a_moment_is_erased_also_what_the_device_no_longer_has(plant: Plant) -> None:
    rows = [plant.record.say(MARK, station=station, number=n) for n, station in enumerate(("a", "b"))]
    answered(plant.record, rows[0], MARK)
    plant.upload()
    plant.send()
    plant.record.limit(rows=1, input_bytes=1)
    assert plant.record.store.last_decisions(9) == [], "the device has dropped them"
    moment = plant.record.clock.now_ms() + 1
    plant.record.clock.forward(60)
    young = plant.record.say(OTHER, station="a", number=2)
    plant.upload()
    plant.record.forget(before_ms=moment, station="a")
    plant.send()
    assert plant.http.get(f"/v1/inputs/{rows[0].input.digest}").status_code == 404
    assert plant.http.get(f"/v1/inputs/{rows[1].input.digest}").status_code == 200
    assert plant.http.get(f"/v1/inputs/{young.input.digest}").status_code == 200
    plant.record.forget(before_ms=moment)
    plant.send()
    assert not plant.here(MARK) and plant.here(OTHER)


def test_request_that_comes_again_changes_nothing_more(plant: Plant) -> None:
    row = plant.record.say(MARK)
    plant.record.forget(row.seq)
    batch = plant.batch()
    for _ in range(3):
        assert plant.world.take(batch) == {"box-1": 2}
    assert len(plant.audits()) == 1 and plant.world.quarantined() == []


def test_copies_that_were_on_their_way_bring_nothing_back(plant: Plant) -> None:
    row = plant.record.say(MARK)
    found = plant.record.store.inputs.get(row.input.digest)
    assert found is not None
    late = plant.batch()
    plant.record.forget(row.seq)
    plant.send()
    assert not plant.here(MARK)
    assert plant.world.take(late) == {"box-1": 2}, "the row itself, once more"
    assert plant.put(row.input.digest, found[0]) == 503
    assert not plant.here(MARK) and plant.world.quarantined() == []


def test_row_that_comes_after_its_erasure_is_erased_when_the_gap_is_filled(plant: Plant) -> None:
    row = plant.record.say(MARK)
    late = plant.batch()
    plant.record.forget(row.seq)
    assert plant.world.take(plant.batch(after=row.seq)) == {"box-1": 0}
    assert plant.world.take(late) == {"box-1": 2}
    assert not plant.here(MARK)


def test_row_that_was_erased_before_its_acknowledgement_came_is_no_other_row(plant: Plant) -> None:
    row = plant.record.say(MARK)
    plant.world.take(plant.batch())  # stored, but the device never heard of it
    plant.record.forget(row.seq)
    again = [json.loads(plant.record.store.unsent(0)[0].body)]
    assert plant.world.take(up("box-1", again, incarnation=plant.record.store.incarnation)) == {"box-1": 1}
    assert plant.world.quarantined() == [] and "text" not in plant.world.rows(tables.decisions)[0].body
    plant.send()
    assert not plant.here(MARK) and len(plant.audits()) == 1


def test_content_that_is_kept_anew_may_come_again(plant: Plant) -> None:
    row = plant.record.say(MARK)
    plant.record.forget(row.seq)
    plant.send()
    again = plant.record.say(MARK)
    waiting, content = plant.record.store.inputs.next(), plant.record.store.inputs.get(again.input.digest)
    assert waiting is not None and content is not None
    assert plant.put(waiting.digest, content[0]) == 503, "its decision has not come yet"
    plant.send()
    plant.upload()
    assert plant.http.get(f"/v1/inputs/{row.input.digest}").status_code == 200


def test_picture_of_another_device_stays_for_that_one(plant: Plant) -> None:
    row = plant.record.say(MARK)
    found = plant.record.store.inputs.get(row.input.digest)
    assert found is not None
    plant.upload()
    assert plant.put(row.input.digest, found[0], "box-2") == 200
    plant.record.forget(row.seq)
    plant.send()
    assert plant.http.get(f"/v1/inputs/{row.input.digest}").status_code == 200
    assert plant.audits()[0].data["kept_for_others"] == 1
    request = {"kind": "event", "seq": 1, "at_ms": 1, "boot_id": "b", "name": "inputs_forgotten"}
    plant.world.take(up("box-2", [{**request, "data": {"digests": [row.input.digest], "seqs": []}}]))
    assert plant.http.get(f"/v1/inputs/{row.input.digest}").status_code == 404
    assert not plant.here(f"{MARK} 0")


def test_device_that_never_sent_a_picture_cannot_have_it_erased(plant: Plant) -> None:
    row = plant.record.say(MARK)
    plant.upload()
    plant.send()
    request = {"kind": "event", "seq": 1, "at_ms": 1, "boot_id": "b", "name": "inputs_forgotten"}
    data = {"digests": [row.input.digest], "seqs": [row.seq], "before_ms": 2**50}
    plant.world.take(up("box-2", [{**request, "data": data}]))
    assert plant.http.get(f"/v1/inputs/{row.input.digest}").status_code == 200
    assert plant.here(MARK)


@pytest.mark.parametrize(
    "data",
    [None, [], {"seqs": "all"}, {"digests": [1, "../x", None], "seqs": [None, "1"]}, {"before_ms": "now"}, {"why": 3}],
    ids=str,
)
def test_request_that_makes_no_sense_erases_nothing_and_holds_up_nobody(plant: Plant, data: Any) -> None:
    row = plant.record.say(MARK)
    plant.upload()
    plant.send()
    event = {"kind": "event", "seq": 2, "at_ms": 1, "boot_id": "b", "name": "inputs_forgotten", "data": data}
    assert plant.world.take(up("box-1", [event], incarnation=plant.record.store.incarnation)) == {"box-1": 2}
    assert plant.http.get(f"/v1/inputs/{row.input.digest}").status_code == 200 and plant.here(MARK)


def test_what_was_quarantined_is_erased_too(plant: Plant) -> None:
    plant.record.say(OTHER)
    plant.send()
    other = json.loads(decision(text=MARK).model_dump_json())
    plant.world.take(up("box-1", [{**other, "seq": 1}], incarnation=plant.record.store.incarnation))
    plant.world.take(incoming("box-1", "up", f"half a message: {MARK}".encode()))
    assert len(plant.world.quarantined()) == 2 and plant.here(MARK)
    plant.record.forget(1)
    plant.send()
    assert not plant.here(MARK) and len(plant.world.quarantined()) == 2


def test_log_that_somebody_reads_from_is_emptied_with_a_later_batch(plant: Plant) -> None:
    row = plant.record.say(MARK)
    plant.send()
    plant.record.forget(row.seq)
    with plant.world.services.store.read() as reader:
        reader.execute(select(tables.decisions.c.seq)).all()
        plant.send()
    assert plant.here(MARK), "in the write-ahead log, for who still reads"
    plant.record.say(OTHER, number=3)
    plant.send()
    assert not plant.here(MARK)
