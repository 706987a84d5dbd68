"""Rules of the line on a clock in the hand: properties over any series of parts, against their plainest reading."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edge.stationrules import Change, LineRules, LineState, acknowledged, decided, waited
from edge.wire.terms import Action, Verdict

PARTS: list[tuple[Verdict, Action]] = [
    ("pass", "pass"),
    ("divert", "divert"),
    ("defer", "hand_over"),
    ("defer", "safe"),
    ("divert", "none"),
]
HOUR_S = 3600.0
HOURLY = LineRules(reference_every_s=HOUR_S, reference_name="ref-*")
parts = st.lists(st.sampled_from(PARTS), max_size=100)


def run(rules: LineRules, *script: Any, state: LineState | None = None) -> tuple[LineState, list[Change]]:
    """Play (verdict, action, name, now_s) and bare times to wait until."""
    state, told = state or LineState(0.0), []
    for step in script:
        if isinstance(step, float):
            state, changes = waited(state, rules, step)
        else:
            state, changes = decided(state, rules, *step)
        told += changes
    return state, told


@given(parts, st.integers(2, 6))
def test_line_stops_exactly_when_so_many_rejects_come_with_no_pass_between(
    series: list[tuple[Verdict, Action]], n: int
) -> None:
    rules, state, told, row = LineRules(stop_after_rejects=n), LineState(0.0), [], 0
    for verdict, action in series:
        state, changes = decided(state, rules, verdict, action, "part", 0.0)
        told += changes
        row = 0 if action == "pass" else row + (action == "divert")
        if row >= n:
            break
    assert told == (["stopped"] if row >= n else [])
    assert state.stopped == (row >= n)


@given(parts)
def test_stopped_line_is_stopped_once_and_only_a_person_lets_it_run(series: list[tuple[Verdict, Action]]) -> None:
    rules = LineRules(stop_after_rejects=2)
    state, told = run(rules, *[("divert", "divert", "part", 0.0)] * 2)
    assert told == ["stopped"]
    for verdict, action in series:
        state, changes = decided(state, rules, verdict, action, "part", 0.0)
        assert changes == [] and state.stopped
    state, changes = acknowledged(state)
    assert changes == ["released"] and not state.stopped and state.rejects_in_a_row == 0
    assert acknowledged(state) == (state, [])


def test_what_a_person_decides_and_reference_parts_stop_nothing() -> None:
    rules = LineRules(2, HOUR_S, "ref-*")
    state, told = run(rules, *[("divert", "none", "part", 0.0)] * 5, *[("divert", "divert", "ref-1", 0.0)] * 5)
    assert told == [] and not state.stopped


def test_missing_reference_part_is_an_alarm_once_and_ends_with_one() -> None:
    state, told = run(HOURLY, HOUR_S, ("pass", "pass", "part", HOUR_S))
    assert told == []
    state, told = run(HOURLY, HOUR_S + 1, HOUR_S + 2, ("divert", "divert", "part", HOUR_S + 3), state=state)
    assert told == ["reference_missing"], "an ordinary reject is no reference part"
    state, told = run(HOURLY, ("divert", "divert", "ref-7", HOUR_S + 9), 2 * HOUR_S, state=state)
    assert told == ["reference_seen"]
    _, told = run(HOURLY, 2 * HOUR_S + 10, state=state)
    assert told == ["reference_missing"]


def test_reference_part_that_passes_is_an_alarm_at_once() -> None:
    for verdict in ("pass", "defer"):
        state, told = run(HOURLY, (verdict, "pass", "ref-1", 5.0))
        assert told == ["reference_missing"] and state.reference_missing


def test_reference_part_counts_also_where_a_person_decides() -> None:
    _, told = run(HOURLY, ("divert", "none", "ref-1", HOUR_S - 1), 2 * HOUR_S - 2)
    assert told == []


def test_without_a_name_any_reject_counts() -> None:
    rules = LineRules(reference_every_s=HOUR_S)
    _, told = run(rules, ("divert", "divert", "part", HOUR_S - 1), ("pass", "pass", "part", 2 * HOUR_S - 2))
    assert told == []


@given(st.lists(st.tuples(st.floats(0, 2 * HOUR_S), st.sampled_from(PARTS), st.booleans()), max_size=60))
def test_alarm_stands_exactly_while_no_reference_part_was_rejected_in_time(
    steps: list[tuple[float, tuple[Verdict, Action], bool]],
) -> None:
    state, now_s, last_s, missing = LineState(0.0), 0.0, 0.0, False
    for wait_s, (verdict, action), is_reference in steps:
        now_s += wait_s
        state, changes = waited(state, HOURLY, now_s)
        name = "ref-1" if is_reference else "part"
        state, more = decided(state, HOURLY, verdict, action, name, now_s)
        before, late = missing, now_s - last_s > HOUR_S
        if is_reference and verdict == "divert":
            expected = [
                *(["reference_missing"] if late and not before else []),
                *(["reference_seen"] if before or late else []),
            ]
            missing, last_s = False, now_s
        else:
            missing = before or late or is_reference
            expected = ["reference_missing"] if missing and not before else []
        assert changes + more == expected and state.reference_missing == missing


def test_rules_say_what_they_ask_for() -> None:
    assert LineRules(5, 3600, "ref-*").in_words() == [
        "stops after 5 rejects in a row",
        "must reject a part ref-* every 60 min",
    ]
    assert not LineRules().any and LineRules().in_words() == []
