"""The review queue as cards, and undoing."""

from typing import Any

import pytest

from cloud import tables
from cloud.console.views.review import ReviewCard, cards
from cloud.errors import ConflictError, NotFoundError
from cloud.review import UNDO_MS
from tests.clocks import HeldClock
from tests.cloud.console.plant import LABELS, Plant, ref


def _cards(plant: Plant, labels: dict[str, list[str]] | None = None) -> list[ReviewCard]:
    return cards(plant.services.reviews.queue(last=60), labels or {})


def test_items_that_can_be_judged_stand_before_those_whose_input_is_missing(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    missing = plant.deferral("box-1")
    clock.forward(1)
    data = b"picture"
    here = plant.deferral("box-1", input=plant.input_ref("b.jpg", data))
    plant.up("box-1", [missing, here])
    plant.arrive("box-1", data)
    assert [card.seq for card in _cards(plant)] == [here.seq, missing.seq]


def test_deferrals_stand_before_audits_and_the_oldest_of_each_first(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    audit = {"reason": "audit", "audit_probability": 0.1}
    now_ms = clock.now_ms()
    rows = [
        plant.decision("box-1", at_ms=now_ms - 9000, **audit),
        plant.deferral("box-1", at_ms=now_ms - 1000),
        plant.decision("box-1", at_ms=now_ms - 8000, **audit),
        plant.deferral("box-1", at_ms=now_ms - 2000),
    ]
    plant.up("box-1", list(rows))
    wanted = [rows[3].seq, rows[1].seq, rows[0].seq, rows[2].seq]
    for last in range(1, 5):
        assert [item.seq for item in plant.services.reviews.queue(last=last)] == wanted[:last]


def test_inspection_offers_pass_and_divert_and_the_defects_by_number(plant: Plant) -> None:
    plant.enrol("box-1")
    plant.up("box-1", [plant.deferral("box-1")])
    (card,) = _cards(plant, {ref().digest: LABELS})
    assert [a.answer for a in card.answers] == ["pass", "divert", "cant_tell"]
    assert [(c.key, c.label, c.answer) for c in card.classes][:2] == [
        ("1", "scratch", "divert"),
        ("2", "crack", "divert"),
    ]
    assert "good" not in [c.label for c in card.classes]


def test_keyword_offers_accept_with_its_word_and_each_digit_under_its_own_key(plant: Plant) -> None:
    plant.enrol("box-1", models=["spoken_digits"])
    scores = {"zero": 0.1, "seven": 0.6, "nine": 0.3}
    heard = plant.input_ref("a.wav", b"sound", "audio/wav")
    plant.up("box-1", [plant.deferral("box-1", label="seven", scores=scores, bundle=ref("spoken_digits"), input=heard)])
    (card,) = _cards(plant)
    assert [(a.answer, a.label) for a in card.answers] == [("accept", "seven"), ("divert", None), ("cant_tell", None)]
    assert {c.label: c.key for c in card.classes} == {"zero": "0", "seven": "7", "nine": "9"}
    assert {c.answer for c in card.classes} == {"accept"}


def test_labels_that_are_digits_are_their_own_keys(plant: Plant) -> None:
    plant.enrol("box-1", models=["spoken_digits"])
    heard = plant.input_ref("a.wav", b"sound", "audio/wav")
    scores = {"0": 0.2, "9": 0.8}
    plant.up("box-1", [plant.deferral("box-1", label="9", scores=scores, bundle=ref("spoken_digits"), input=heard)])
    (card,) = _cards(plant)
    assert {c.label: c.key for c in card.classes} == {"0": "0", "9": "9"}


def test_bad_input_without_scores_can_still_be_answered(plant: Plant) -> None:
    plant.enrol("box-1")
    nothing: dict[str, Any] = {"label": None, "confidence": None, "scores": {}, "bundle": None}
    plant.up("box-1", [plant.deferral("box-1", reason="bad_input", detail="brightness 0.01 is below 0.1", **nothing)])
    (card,) = _cards(plant)
    assert [a.answer for a in card.answers] == ["pass", "divert", "cant_tell"]
    assert (card.classes, card.detail) == ([], "brightness 0.01 is below 0.1")


def test_undone_answer_puts_its_decision_back_and_leaves_both_on_record(plant: Plant) -> None:
    plant.enrol("box-1")
    row = plant.deferral("box-1")
    plant.up("box-1", [row])
    reviews = plant.services.reviews
    number = reviews.answer("box-1", "box-1-1", row.seq, answer="pass", reviewer="ada")
    assert reviews.waiting() == 0
    reviews.undo(number, who="ada")
    assert reviews.waiting() == 1
    with plant.services.store.read() as connection:
        log = connection.execute(tables.audit_log.select().order_by(tables.audit_log.c.id)).all()
        assert connection.execute(tables.reviews.select()).all() == []
    assert [(line.what, (line.before or line.data)["answer"]) for line in log] == [
        ("decision_reviewed", "pass"),
        ("review_undone", "pass"),
    ]


def test_undoing_one_of_two_answers_does_not_ask_again(plant: Plant) -> None:
    plant.enrol("box-1")
    row = plant.deferral("box-1")
    plant.up("box-1", [row])
    reviews = plant.services.reviews
    reviews.answer("box-1", "box-1-1", row.seq, answer="pass", reviewer="ada")
    second = reviews.answer("box-1", "box-1-1", row.seq, answer="divert", reviewer="eve")
    reviews.undo(second, who="eve")
    assert reviews.waiting() == 0


def test_answer_that_is_no_slip_any_more_is_not_undone(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    row = plant.deferral("box-1")
    plant.up("box-1", [row])
    number = plant.services.reviews.answer("box-1", "box-1-1", row.seq, answer="pass", reviewer="ada")
    clock.forward(UNDO_MS / 1000 + 1)
    with pytest.raises(ConflictError):
        plant.services.reviews.undo(number, who="ada")
    with pytest.raises(NotFoundError):
        plant.services.reviews.undo(number + 1, who="ada")
