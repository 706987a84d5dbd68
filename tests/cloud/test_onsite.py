"""Answers given at a device count like those given at the console, once, whatever the order in which they come."""

from typing import Any

import pytest

from cloud import tables
from tests.cloud.world import World, decision, event, up


@pytest.fixture(autouse=True)
def _members(world: World) -> None:
    world.enrol("box-1")


def answered(seq: int, decision_seq: int, answer: str = "divert", **data: Any) -> dict[str, Any]:
    given = {"decision_seq": decision_seq, "answer": answer, "reviewer": "Ada", **data}
    return {**event(seq), "name": "decision_answered", "data": given}


def unsure(seq: int) -> dict[str, Any]:
    return {**decision(seq), "verdict": "defer", "action": "hand_over", "reason": "unsure"}


def test_answer_takes_its_decision_off_the_queue_and_is_signed(world: World) -> None:
    world.take(up("box-1", [unsure(1)]))
    assert world.services.reviews.waiting() == 1
    world.take(up("box-1", [answered(2, 1)]))
    assert world.services.reviews.waiting() == 0
    (review,) = world.rows(tables.reviews)
    assert (review.seq, review.answer, review.reviewer) == (1, "divert", "Ada")
    assert any(row.what == "decision_reviewed" and row.who == "Ada" for row in world.rows(tables.audit_log))


@pytest.mark.parametrize(("named", "kept"), [("7", "7"), (None, None), (" ", None), (7, None), ("x" * 99, "x" * 64)])
def test_word_that_was_named_at_the_device_is_kept_with_the_answer(world: World, named: Any, kept: str | None) -> None:
    world.take(up("box-1", [unsure(1), answered(2, 1, "accept", label=named)]))
    (review,) = world.rows(tables.reviews)
    assert (review.answer, review.label) == ("accept", kept)


def test_same_event_again_is_one_answer(world: World) -> None:
    batch = up("box-1", [unsure(1), answered(2, 1)])
    world.take(batch)
    world.take(batch)
    assert world.count(tables.reviews) == 1


def test_answer_that_overtook_its_decision_is_kept_when_that_comes(world: World) -> None:
    world.take(up("box-1", [answered(2, 1)]))
    assert world.count(tables.reviews) == 0
    world.take(up("box-1", [unsure(1)]))
    assert world.count(tables.reviews) == 1
    assert world.services.reviews.waiting() == 0


@pytest.mark.parametrize("data", [{"answer": "maybe"}, {"reviewer": " "}, {"decision_seq": "1"}, {"decision_seq": 77}])
def test_answer_that_means_nothing_is_left_alone(world: World, data: dict[str, Any]) -> None:
    world.take(up("box-1", [unsure(1), {**answered(2, 1), "data": {**answered(2, 1)["data"], **data}}]))
    assert world.count(tables.reviews) == 0
    assert world.count(tables.events) == 1
    assert world.services.reviews.waiting() == 1


def by_server(seq: int, decision_seq: int, review: str) -> dict[str, Any]:
    data = {"decision_seq": decision_seq, "verdict": "accept", "label": "7", "review": review}
    return {**event(seq), "name": "server_answered", "data": data}


@pytest.mark.parametrize(("review", "waiting"), [("kept", 1), ("closed", 0)])
def test_answer_of_a_server_spares_people_only_where_the_station_says_so(
    world: World, review: str, waiting: int
) -> None:
    world.take(up("box-1", [unsure(1), by_server(2, 1, review)]))
    assert world.services.reviews.waiting() == waiting
    assert world.count(tables.reviews) == 0, "no person has reviewed it"


def test_answer_of_a_server_that_overtook_its_decision_counts_when_that_comes(world: World) -> None:
    world.take(up("box-1", [by_server(2, 1, "closed")]))
    world.take(up("box-1", [unsure(1)]))
    assert world.services.reviews.waiting() == 0
