"""Acting: refused, late and gone end in the safe action and one alarm, and nothing is told with every part."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.acting import Acting
from edge.actuators.hysteresis import CLEAR_AFTER, Hysteresis
from edge.actuators.reopening import WAIT_MAX_S, LaterActuator, open_or_later
from edge.errors import ActuatorError, ConfigError, StoreError
from edge.store import Store
from edge.wire.rows import DecisionRow, EventRow, OutcomeRow
from tests.clocks import HeldClock
from tests.edge.test_pipeline import FullStore
from tests.seams.fakes import RecordingActuator
from tests.seams.test_actuators import decision


class Plant(RecordingActuator):
    """An actuator whose actions fail or are late, while its safe action works."""

    def __init__(self) -> None:
        super().__init__()
        self.refusing: str | None = None
        self.away: str | None = None
        self.takes_s = 0.0

    def look(self) -> str | None:
        return self.away

    def act(self, decision: DecisionRow) -> str | None:
        time.sleep(self.takes_s)
        if self.refusing is not None:
            raise ActuatorError(self.refusing)
        return super().act(decision)


class Bench:
    """Acting on a real record."""

    def __init__(self, folder: Path) -> None:
        self.clock = HeldClock()
        self.store = Store.open(folder / "r.sqlite", clock=self.clock, durability="process")
        self.plant = Plant()
        self.acting = Acting(self.plant, self.store, self.clock, "boot", "press")

    def act(self, count: int = 1, **changes: object) -> OutcomeRow:
        for _ in range(count):
            row = self.store.append_decision(decision(1, **changes), input_key=None)
            self.acting.act(row)
            self.acting.settle()
        return self.outcomes()[-1]

    def outcomes(self) -> list[OutcomeRow]:
        return [row for row in self.store.rows(kind="outcome") if isinstance(row, OutcomeRow)]

    def events(self) -> list[EventRow]:
        return [row for row in self.store.rows(kind="event") if isinstance(row, EventRow)]

    def names(self) -> list[str]:
        return [row.name.removeprefix("actuator_failure_") for row in self.events()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_refused_action_ends_in_the_safe_action_and_an_alarm(bench: Bench) -> None:
    bench.plant.refusing = "exception code 2"
    outcome = bench.act()
    assert (outcome.state, outcome.detail) == ("failed", "exception code 2; took the safe action")
    assert bench.plant.safe_for == [f"decision {outcome.decision_seq}: divert failed: exception code 2"]
    (event,) = bench.events()
    assert (event.name, event.severity, event.station) == ("actuator_failure_raised", "alarm", "press")
    assert event.data == {"actuator": "recording"} and bench.acting.problem == "exception code 2"


def test_late_action_has_failed_though_it_was_carried_out(bench: Bench) -> None:
    bench.plant.deadline_ms, bench.plant.takes_s = 5.0, 0.02
    outcome = bench.act()
    assert outcome.state == "failed" and (outcome.detail or "").startswith("late: took ")
    assert "deadline 5 ms; took the safe action" in (outcome.detail or "")
    assert len(bench.plant.safe_for) == 1 and bench.names() == ["raised"]


def test_plant_that_is_gone_fails_the_safe_action_too_and_says_both(bench: Bench) -> None:
    bench.plant.failing = bench.plant.refusing = "no route to host"
    outcome = bench.act()
    assert outcome.detail == "no route to host; the safe action failed too: no route to host"


def test_safe_action_that_fails_is_not_followed_by_itself(bench: Bench) -> None:
    bench.plant.refusing = "stuck"
    bench.act(action="safe", verdict="defer")
    assert bench.plant.safe_for == []


def test_many_failures_are_one_alarm_and_one_end(bench: Bench) -> None:
    bench.plant.refusing = "stuck"
    bench.act(20)
    bench.plant.refusing = None
    bench.act(10)
    bench.plant.refusing = "stuck"
    bench.act()
    assert bench.names() == ["raised", "cleared", "raised"]
    assert [outcome.state for outcome in bench.outcomes()] == ["failed"] * 20 + ["done"] * 10 + ["failed"]


def test_loose_contact_is_one_trouble(bench: Bench) -> None:
    for refusing in ["stuck", None, None] * 10:
        bench.plant.refusing = refusing
        bench.act()
    assert bench.names() == ["raised"]


def test_plant_that_goes_away_while_nothing_comes_is_an_alarm_and_its_return_ends_it(bench: Bench) -> None:
    bench.plant.away = "the PLC does not answer"
    for _ in range(5):
        bench.acting.look()
    assert bench.names() == ["raised"]
    bench.plant.away = None
    for _ in range(CLEAR_AFTER):
        bench.acting.look()
    assert bench.names() == ["raised", "cleared"] and bench.acting.problem is None


def test_looking_does_not_end_what_an_action_began(bench: Bench) -> None:
    bench.plant.refusing = "stuck"
    bench.act()
    for _ in range(10):
        bench.acting.look()
    assert bench.names() == ["raised"], "nothing is known of the plant until it takes an action"


def test_alarm_that_found_no_room_is_told_with_the_next_failure(bench: Bench) -> None:
    full = FullStore(bench.store)
    acting = Acting(bench.plant, full, bench.clock, "boot", "press")
    bench.plant.refusing = "stuck"
    row = bench.store.append_decision(decision(1), input_key=None)
    full.full = True
    acting.act(row)
    assert bench.events() == [] and bench.store.pending_actions() == [row.seq]
    full.full = False
    acting.act(row)
    assert bench.names() == ["raised"]


def test_nothing_is_done_where_a_person_decides(bench: Bench) -> None:
    row = bench.store.append_decision(decision(1, action="none"), input_key=None, wants_outcome=False)
    bench.acting.act(row)
    assert bench.plant.acted == [] and bench.outcomes() == []


def test_actuator_that_confirms_later_is_woken_and_its_action_stays_pending(bench: Bench) -> None:
    bench.plant.confirms_later = True
    row = bench.store.append_decision(decision(1), input_key=None)
    bench.acting.act(row)
    assert [acted.seq for acted in bench.plant.acted] == [row.seq]
    assert bench.outcomes() == [] and bench.store.pending_actions("press") == [row.seq]
    bench.plant.away = "the receiver does not answer"
    bench.acting.look()
    assert bench.acting.problem == "the receiver does not answer" and bench.events() == [], "it tells by itself"


@given(st.lists(st.booleans(), max_size=200))
def test_trouble_is_told_as_often_as_it_ends_give_or_take_one(works: list[bool]) -> None:
    trouble, told = Hysteresis(), []
    for good in works:
        if good and trouble.worked():
            told.append("cleared")
        elif not good and trouble.failed():
            told.append("raised")
    assert told == ["raised", "cleared"] * (len(told) // 2) + ["raised"] * (len(told) % 2)
    assert trouble.failing == (len(told) % 2 == 1)
    assert (False in works) == bool(told), "the first failure is told at once"


class Opener:
    """Opens an actuator once there is a plant."""

    def __init__(self, error: ActuatorError | ConfigError | None) -> None:
        self.error = error
        self.tries = 0
        self.made = RecordingActuator()

    def __call__(self) -> RecordingActuator:
        self.tries += 1
        if self.error is not None:
            raise self.error
        return self.made


def test_actuator_that_opens_at_once_has_nothing_in_between() -> None:
    opener = Opener(None)
    assert open_or_later("recording", opener, HeldClock()) is opener.made


def test_plant_that_is_not_there_yet_fails_actions_at_once_and_is_opened_when_it_is() -> None:
    opener, clock = Opener(ActuatorError("connection refused")), HeldClock()
    later = open_or_later("modbus", opener, clock)
    assert isinstance(later, LaterActuator) and not later.confirms_later
    for _ in range(50):
        with pytest.raises(ActuatorError, match="cannot open the modbus actuator: connection refused"):
            later.act(decision(1))
    assert opener.tries == 1, "not tried with every part"
    opener.error = None
    clock.forward(1.0)
    assert later.look() is None
    later.act(decision(2))
    assert [row.seq for row in opener.made.acted] == [2]


def test_wrong_setting_is_tried_again_seldom() -> None:
    opener, clock = Opener(ConfigError("no such file")), HeldClock()
    later = open_or_later("webhook", opener, clock)
    clock.forward(WAIT_MAX_S - 1)
    assert later.look() is not None and opener.tries == 1
    assert later.act(decision(1)) == "queued", "it lies in the record"
    clock.forward(2)
    later.look()
    assert opener.tries == 2


def test_store_that_fails_is_no_failure_of_the_plant(bench: Bench) -> None:
    def refuse(row: OutcomeRow) -> None:
        raise StoreError("no room")

    bench.store.append_outcome = refuse  # type: ignore[method-assign]
    row = bench.store.append_decision(decision(1), input_key=None)
    bench.acting.act(row)
    bench.acting.settle()
    assert bench.acting.problem is None and bench.store.pending_actions() == [row.seq]
