"""From payload to rows, and how far a stream is contiguous."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.parsing import Batch, Unreadable, excerpt, merge, parse
from edge.wire.messages import Presence, Reported
from tests.cloud.world import decision, event, reported
from tests.contract.samples import SAMPLES

UP = "lineside/1/box-1/up"


def _parse(document: Any, topic_name: str = UP) -> Any:
    return parse(topic_name, json.dumps(document).encode(), received_at_ms=5)


def _batch(*rows: Any) -> Batch:
    parsed = _parse({"kind": "up", "device": "box-1", "incarnation": "i1", "rows": list(rows)})
    assert isinstance(parsed, Batch)
    return parsed


def test_batch_is_sorted_into_tables_with_bodies_as_they_came() -> None:
    unknown = {"a": [1, {"b": None}]}
    batch = _batch(decision(1, later=unknown), event(2))
    assert batch.seqs == [1, 2]
    assert batch.rows["decisions"][0]["body"] == decision(1, later=unknown)
    assert batch.rows["events"][0]["name"] == "swapped"
    assert batch.bad == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"verdict": "defer", "action": "hand_over", "reason": "unsure"}, True),
        ({"verdict": "pass", "reason": "audit"}, True),
        ({"verdict": "pass"}, False),
        ({"verdict": "divert", "action": "divert"}, False),
    ],
)
def test_deferred_and_audited_decisions_need_review(fields: dict[str, Any], expected: object) -> None:
    assert _batch(decision(1, **fields)).rows["decisions"][0]["needs_review"] is expected


@pytest.mark.parametrize(
    "row",
    [
        event(2, name=None),
        event(2, at_ms=2**60),
        event(2, kind="unheard_of"),
        decision(2, verdict="perhaps"),
        {"seq": 2},
        "text",
        None,
        {},
        [],
    ],
)
def test_bad_row_is_handed_back_and_counts_as_received(row: Any) -> None:
    batch = _batch(event(1), row, event(3))
    assert batch.seqs == [1, 2, 3]
    assert [bad.seq for bad in batch.bad] == [2]
    assert batch.bad[0].reason
    assert [kept["seq"] for kept in batch.rows["events"]] == [1, 3]


def test_bad_row_at_the_head_gets_the_number_before_its_neighbour() -> None:
    assert _batch({}, {}, event(7)).seqs == [5, 6, 7]


def test_number_beyond_what_databases_hold_is_not_believed() -> None:
    batch = _batch(event(1), event(2**70), event(3))
    assert batch.seqs == [1, 2, 3]
    assert "seq" in batch.bad[0].reason


@pytest.mark.parametrize(
    ("topic_name", "payload", "reason"),
    [
        (UP, b"\xff\x00", "not JSON"),
        (UP, b"[]", "JSON object"),
        (UP, b"[" * 100_000, "not JSON"),
        (UP, b'{"kind":"up","device":"box-2","incarnation":"i","rows":[]}', "device: expected 'box-1'"),
        (UP, b'{"kind":"presence","device":"box-1"}', "kind: expected 'up'"),
        (UP, b'{"kind":"up","device":"box-1","incarnation":"","rows":[{}]}', "incarnation"),
        (UP, b'{"kind":"up","device":"box-1","incarnation":"i","rows":[]}', "rows: expected"),
        (UP, b'{"kind":"up","device":"box-1","incarnation":"i","rows":[{}]}', "sequence number"),
        ("lineside/1/box-1/desired", b"{}", "channel"),
        ("lineside/1/Box/up", b"{}", "topic"),
        ("lineside/1/box-1/reported", b'{"kind":"reported","device":"box-1"}', "Field required"),
    ],
)
def test_message_that_says_nothing_gives_its_reason(topic_name: str, payload: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        parse(topic_name, payload, received_at_ms=1)


def test_state_and_presence_are_read() -> None:
    assert _parse(reported().model_dump(mode="json"), "lineside/1/box-1/reported") == reported()
    birth = next(sample for sample in SAMPLES if isinstance(sample, Presence))
    assert _parse(birth.model_dump(mode="json"), "lineside/1/box-1/presence") == birth
    assert isinstance(next(sample for sample in SAMPLES if isinstance(sample, Reported)), Reported)


def test_excerpt_is_text_that_every_database_takes() -> None:
    assert excerpt(b"a\x00\xff") == "a\\0\\xff"
    assert len(excerpt(b"x" * 10**6)) == 4000


@given(st.lists(st.lists(st.integers(1, 40), max_size=8), max_size=12))
def test_contiguous_part_is_what_a_plain_set_says(batches: list[list[int]]) -> None:
    stored: set[int] = set()
    through, beyond = 0, list[list[int]]()
    for seqs in batches:
        through, beyond = merge(through, beyond, seqs)
        stored.update(seqs)
        expected = next(number for number in range(42) if number + 1 not in stored)
        assert through == expected
        assert {number for first, last in beyond for number in range(first, last + 1)} == {
            number for number in stored if number > expected
        }
        assert all(one[1] + 1 < other[0] for one, other in pairwise(beyond))
