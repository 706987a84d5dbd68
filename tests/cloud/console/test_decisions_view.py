"""Decisions as lines, pages and in full."""

from typing import Any

import pytest

from cloud.console.views import decisions
from cloud.console.views.decisions import Page
from edge.wire.rows import OutcomeRow
from tests.clocks import HeldClock
from tests.cloud.console.plant import Plant


def _page(plant: Plant, only: decisions.Filter = "all", before: tuple[int, int] | None = None) -> Page:
    with plant.services.store.read() as connection:
        return decisions.page(connection, "box-1", only=only, before=before)


def test_pages_hold_every_decision_once_while_new_ones_arrive(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    for _ in range(decisions.PAGE * 2 + 5):
        plant.up("box-1", [plant.decision("box-1")])
        clock.forward(0 if clock.now_ms() % 2 else 0.001)  # several within one millisecond
    seen: list[int] = []
    page = _page(plant)
    seen += [line.seq for line in page.lines]
    while page.older:
        plant.up("box-1", [plant.decision("box-1")])
        at_ms, _, seq = page.older.partition(".")
        page = _page(plant, before=(int(at_ms), int(seq)))
        seen += [line.seq for line in page.lines]
    assert sorted(seen) == list(range(1, decisions.PAGE * 2 + 6))
    assert len(seen) == len(set(seen))


def test_filter_shows_one_kind(plant: Plant) -> None:
    plant.enrol("box-1")
    audited = plant.decision("box-1", reason="audit", audit_probability=0.1)
    plant.up("box-1", [plant.decision("box-1"), plant.deferral("box-1"), audited])
    assert [line.verdict for line in _page(plant, "defer").lines] == ["defer"]
    assert [line.seq for line in _page(plant, "audit").lines] == [audited.seq]
    assert len(_page(plant).lines) == 3


def test_input_is_offered_only_once_it_has_arrived(plant: Plant) -> None:
    plant.enrol("box-1")
    data = b"\xff\xd8 not really a picture"
    plant.up("box-1", [plant.decision("box-1", input=plant.input_ref("a.jpg", data))])
    (line,) = _page(plant).lines
    assert (line.input.kind, line.input.here, line.input.absent) == ("picture", False, "not arrived yet")
    plant.arrive("box-1", data)
    (line,) = _page(plant).lines
    assert line.input.here


def test_decision_comes_with_its_outcome_and_what_people_said(plant: Plant) -> None:
    plant.enrol("box-1")
    row = plant.deferral("box-1")
    now_ms = plant.clock.now_ms()
    outcome = OutcomeRow(
        seq=plant.seq("box-1"), decision_seq=row.seq, at_ms=now_ms, state="failed", actuator="lamp", detail="no answer"
    )
    plant.up("box-1", [row, outcome])
    plant.services.reviews.answer(
        "box-1", "box-1-1", row.seq, answer="divert", reviewer="ada", label="crack", note="edge"
    )
    (line,) = _page(plant).lines
    assert (line.outcome, line.outcome_detail, line.answers, line.waits) == ("failed", "no answer", ["divert"], False)
    with plant.services.store.read() as connection:
        found = decisions.detail(connection, "box-1", "box-1-1", row.seq)
    assert found is not None
    assert [(a.answer, a.label, a.reviewer, a.note) for a in found.answers] == [("divert", "crack", "ada", "edge")]
    assert found.scores[0] == ("scratch", 0.55)
    assert found.thresholds == "Defect score 0.55: passes by itself up to 0.1, is diverted from 0.9 on."


@pytest.mark.parametrize("text", ["he was not", "", None])
def test_text_of_a_recogniser_comes_with_its_decision(plant: Plant, text: str | None) -> None:
    plant.enrol("box-1")
    plant.up("box-1", [plant.deferral("box-1", text=text)])
    assert [line.text for line in _page(plant).lines] == [text]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kept": True}, "not arrived yet"),
        ({"kept": False}, "not kept by the device"),
        ({"kept": False, "features": "ab" * 32}, "only its features are kept, on the device"),
        ({"kept": False, "forgotten": True}, "erased on request"),
    ],
    ids=["late", "not kept", "features", "erased"],
)
def test_page_says_why_an_input_is_not_here(plant: Plant, changes: dict[str, Any], words: str) -> None:
    plant.enrol("box-1")
    row = plant.deferral("box-1", forgotten=changes.pop("forgotten", None))
    plant.up("box-1", [row.model_copy(update={"input": row.input.model_copy(update=changes)})])
    (line,) = _page(plant).lines
    assert (line.input.here, line.input.absent) == (False, words)


def test_decision_that_is_not_stored_is_none(plant: Plant) -> None:
    with plant.services.store.read() as connection:
        assert decisions.detail(connection, "box-1", "box-1-1", 7) is None


def test_decision_without_a_bundle_is_shown(plant: Plant) -> None:
    plant.enrol("box-1")
    nothing: dict[str, Any] = {"label": None, "confidence": None, "scores": {}, "bundle": None, "latency_ms": {}}
    plant.up("box-1", [plant.deferral("box-1", reason="bad_input", detail="truncated", **nothing)])
    (line,) = _page(plant).lines
    assert (line.model, line.label, line.latency_ms, line.detail) == (None, None, None, "truncated")
