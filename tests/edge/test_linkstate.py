"""The link's state on record: written when it changes, with the time of the change, over restarts too."""

from edge.errors import StoreError
from edge.linkstate import LINK_META, LinkBook, LinkState, link_words, read_link
from tests.clocks import HeldClock


class Meta:
    """Small facts, and how often one was written."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}
        self.writes = 0
        self.full = False

    def get_meta(self, key: str) -> str | None:
        return self.facts.get(key)

    def set_meta(self, key: str, value: str) -> None:
        if self.full:
            raise StoreError("no room")
        self.writes += 1
        self.facts[key] = value


def test_state_that_stays_is_written_once() -> None:
    store, clock = Meta(), HeldClock()
    book = LinkBook(store, clock)
    for _ in range(5):
        book.note("refused")
        clock.forward(1)
    assert store.writes == 1


def test_time_is_that_of_the_change_and_not_of_another_reason() -> None:
    store, clock = Meta(), HeldClock()
    book, began_ms = LinkBook(store, clock), clock.now_ms()
    book.note("not connected yet")
    clock.forward(60)
    book.note("refused")
    assert read_link(store) == LinkState(connected=False, since_ms=began_ms, problem="refused")
    clock.forward(60)
    book.note(None)
    assert read_link(store) == LinkState(connected=True, since_ms=began_ms + 120_000)


def test_month_away_is_still_a_month_after_a_restart() -> None:
    store, clock = Meta(), HeldClock()
    LinkBook(store, clock).note("no route to host")
    began_ms = clock.now_ms()
    clock.forward(30 * 86_400)
    LinkBook(store, clock).note("not connected yet")
    known = read_link(store)
    assert known is not None and known.since_ms == began_ms
    assert link_words(known, clock.now_ms()).startswith("AWAY since 2023-11-")


def test_state_that_found_no_room_is_written_when_there_is() -> None:
    store, clock = Meta(), HeldClock()
    book = LinkBook(store, clock)
    store.full = True
    book.note("refused")
    store.full = False
    book.note("refused")
    assert store.writes == 1 and read_link(store) is not None


def test_what_cannot_be_read_is_not_known() -> None:
    store = Meta()
    store.facts[LINK_META] = '{"connected": "perhaps"}'
    assert read_link(store) is None and link_words(None, 0) == "control plane not reached yet"
