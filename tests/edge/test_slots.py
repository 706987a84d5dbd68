"""The slots' book: every line of the transition table, and what must hold after any history."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import slots
from edge.slots import MAX_STARTS, TRANSITIONS, Book
from edge.wire.base import BundleRef
from edge.wire.terms import SLOT_STATES


def ref(number: int) -> BundleRef:
    return BundleRef(name="glass", version=f"1.{number}.0", digest=f"{number:064x}", size_bytes=1)


FIRST, SECOND, THIRD = ref(1), ref(2), ref(3)


def serving_two() -> Book:
    """A device set up with the first bundle, the second one on trial."""
    book = slots.preloaded(Book(), FIRST, 1)
    return slots.activated(slots.downloaded(book, SECOND, 2), SECOND, 3)


@pytest.mark.parametrize(("event", "state"), sorted(TRANSITIONS))
def test_line_of_the_table_leads_to_a_known_state(event: slots.Event, state: str) -> None:
    assert slots.next_state(event, state) in SLOT_STATES  # type: ignore[arg-type]


@pytest.mark.parametrize("state", SLOT_STATES)
@pytest.mark.parametrize("event", sorted({event for event, _ in TRANSITIONS}))
def test_event_outside_the_table_is_refused(event: slots.Event, state: str) -> None:
    if (event, state) in TRANSITIONS:
        return
    with pytest.raises(ValueError, match=f"{event} is not possible in state {state}"):
        slots.next_state(event, state)  # type: ignore[arg-type]


def test_table_in_the_docstring_is_the_table_in_the_code() -> None:
    lines = [line.split("|") for line in (slots.__doc__ or "").splitlines() if line.startswith("|")][2:]
    written = {(cells[1].strip(), cells[2].strip()): cells[3].strip() for cells in lines}
    assert written == dict(TRANSITIONS)


def test_trial_runs_but_is_not_current() -> None:
    book = serving_two()
    assert book.current == FIRST.digest
    assert book.serving is not None and book.serving.ref == SECOND


def test_trial_that_lasts_becomes_current_and_keeps_its_forerunner() -> None:
    book = slots.served(serving_two(), 9)
    assert (book.current, book.previous, book.trial) == (SECOND.digest, FIRST.digest, None)


def test_trial_that_fails_leaves_the_current_one_serving() -> None:
    book = slots.breached(serving_two(), SECOND, "crashed", 9)
    assert book.serving is not None and book.serving.ref == FIRST
    assert book.state(SECOND.digest) == "bad"
    failed = book.slot(SECOND.digest)
    assert failed is not None and failed.reason == "crashed"


def test_current_that_fails_gives_way_to_the_previous_one() -> None:
    book = slots.breached(slots.served(serving_two(), 8), SECOND, "hung", 9)
    assert (book.current, book.previous) == (FIRST.digest, None)


def test_current_without_a_previous_one_stays() -> None:
    book = slots.preloaded(Book(), FIRST, 1)
    assert slots.breached(book, FIRST, "crashed", 2) == book


def test_return_to_a_good_bundle_needs_no_trial() -> None:
    book = slots.activated(slots.served(serving_two(), 8), FIRST, 9)
    assert (book.current, book.previous, book.trial) == (FIRST.digest, SECOND.digest, None)


def test_trial_that_is_asked_back_can_be_tried_again() -> None:
    book = slots.activated(serving_two(), FIRST, 9)
    assert book.state(SECOND.digest) == "staged"
    assert book.serving is not None and book.serving.ref == FIRST


def test_new_trial_ends_the_one_before_it() -> None:
    book = slots.activated(slots.downloaded(serving_two(), THIRD, 8), THIRD, 9)
    assert book.trial is not None and book.trial.ref == THIRD
    assert book.state(SECOND.digest) == "staged"


def test_trial_that_kills_the_daemon_again_and_again_is_given_up() -> None:
    book = serving_two()
    for _ in range(MAX_STARTS):
        book = slots.started(book, 9)
        assert book.trial is not None
    book = slots.started(book, 10)
    assert book.state(SECOND.digest) == "bad"
    assert book.serving is not None and book.serving.ref == FIRST


def test_starts_without_a_trial_count_nothing() -> None:
    book = slots.preloaded(Book(), FIRST, 1)
    for _ in range(50):
        book = slots.started(book, 2)
    assert book == slots.preloaded(Book(), FIRST, 1)


def test_current_that_kills_the_daemon_it_runs_in_gives_way_to_the_previous_one() -> None:
    book = slots.served(serving_two(), 8)
    for _ in range(MAX_STARTS):
        book = slots.started(book, 9, contained=False)
        assert book.current == SECOND.digest
    book = slots.started(book, 10, contained=False)
    assert (book.current, book.state(SECOND.digest)) == (FIRST.digest, "bad")
    again = book
    for _ in range(50):
        again = slots.started(again, 11, contained=False)
    assert again == book, "there is none before it: it goes on"


def test_current_that_lasts_or_runs_in_a_child_is_not_counted() -> None:
    book = slots.served(serving_two(), 8)
    for _ in range(50):
        book = slots.lasted(slots.started(book, 9, contained=False), 10)
        book = slots.started(book, 11)
    assert book == slots.served(serving_two(), 8)


def test_book_in_words_names_what_decides_and_what_failed() -> None:
    assert slots.in_words(Book()) == "no bundle"
    assert slots.in_words(serving_two()) == "1.2.0 decides on trial, 1.1.0 before it"
    assert slots.in_words(slots.served(serving_two(), 8)) == "1.2.0 decides; 1.1.0 to go back to"
    assert slots.in_words(slots.breached(serving_two(), SECOND, "crashed", 9)) == "1.1.0 decides; 1.2.0 failed: crashed"


def test_files_that_may_be_returned_to_are_needed() -> None:
    assert serving_two().needed == {FIRST.digest, SECOND.digest}
    assert slots.breached(serving_two(), SECOND, "x", 9).needed == {FIRST.digest}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["download", "activate", "serve", "breach", "refuse", "withdraw", "start"]), st.integers(1, 40)
    ),
    max_size=60,
)


@given(STEPS)
def test_any_history_keeps_a_good_current_bundle(history: list[tuple[str, int]]) -> None:
    book = slots.preloaded(Book(), ref(0), 0)
    for now, (step, number) in enumerate(history):
        book = _try(book, step, ref(number), now)
        current = book.slot(book.current)
        assert current is not None and current.state == "good"
        assert sum(slot.state == "trial" for slot in book.slots) <= 1
        assert book.previous is None or book.state(book.previous) == "good"
        assert book.current != book.previous
        assert len(book.slots) <= slots.MAX_REMEMBERED + 1


def _try(book: Book, step: str, bundle: BundleRef, now: int) -> Book:
    rules = {
        "download": lambda: slots.downloaded(book, bundle, now),
        "activate": lambda: slots.activated(book, bundle, now),
        "serve": lambda: slots.served(book, now),
        "breach": lambda: slots.breached(book, bundle, "x", now),
        "refuse": lambda: slots.refused(book, bundle, "x", now),
        "withdraw": lambda: slots.withdrawn(book, now),
        "start": lambda: slots.started(book, now),
    }
    try:
        return rules[step]()
    except ValueError:
        return book
