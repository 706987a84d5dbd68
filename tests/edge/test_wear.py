"""The day's budget of written bytes: what goes first, what never goes, and what survives a restart and midnight."""

from pathlib import Path

import pytest

from edge.store import WRITTEN_TODAY, Store
from edge.wear import DAY_MS, DROP_FIRST, WriteBudget
from tests.clocks import HeldClock
from tests.rows import decision, telemetry

NOON_MS = 20_000 * DAY_MS + DAY_MS // 2
LIMIT = 1000


def test_budget_near_its_end_leaves_out_one_kind_after_the_other() -> None:
    budget = WriteBudget(LIMIT)
    assert budget.add(790, NOON_MS) is None
    assert budget.add(20, NOON_MS) == ("telemetry",)
    assert budget.add(50, NOON_MS) is None
    assert budget.add(50, NOON_MS) == ("telemetry", "confident_inputs")
    assert budget.add(100, NOON_MS) == DROP_FIRST
    assert budget.telemetry_stretch > 1


def test_order_of_the_settings_decides_and_what_it_does_not_name_stays() -> None:
    budget = WriteBudget(LIMIT, ("deferred_inputs",))
    assert budget.add(800, NOON_MS) == ("deferred_inputs",)
    assert budget.add(9000, NOON_MS) is None
    assert budget.leaves_out("deferred_inputs") and not budget.leaves_out("confident_inputs")


def test_midnight_begins_with_nothing_written_and_nothing_left_out() -> None:
    budget = WriteBudget(LIMIT)
    budget.add(LIMIT, NOON_MS)
    assert budget.leaves_out("telemetry")
    assert budget.add(10, NOON_MS + DAY_MS) == ()
    assert budget.figures() == {"day": 20_001, "written_bytes": 10, "left_out": {}}


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"day": 1}', '{"day": 1, "written_bytes": 2, "left_out": 3}'])
def test_kept_figures_that_cannot_be_read_begin_at_nothing(text: str | None) -> None:
    budget = WriteBudget(LIMIT)
    budget.restore(text)
    assert budget.figures()["written_bytes"] == 0


def test_no_budget_leaves_nothing_out() -> None:
    budget = WriteBudget(None)
    budget.add(10**15, NOON_MS)
    assert budget.reduced == () and budget.telemetry_stretch == 1.0


def test_spent_budget_keeps_decisions_without_their_pictures_counts_and_tells_it(tmp_path: Path) -> None:
    clock = HeldClock()
    budget = WriteBudget(LIMIT)
    with Store.open(tmp_path / "record.sqlite", clock=clock, durability="process", budget=budget) as store:
        store.count_written(LIMIT)
        for number, reason in enumerate((None, "unsure")):
            raw = bytes([number]) * 100
            row = decision(raw=raw, reason=reason, verdict="pass" if reason is None else "defer")
            row = row.model_copy(update={"input": row.input.model_copy(update={"kept": True})})
            assert not store.append_decision(row, input_key=f"{number}", keep=(raw, "image/png")).input.kept
            assert store.inputs.get(row.input.digest) is None
        store.append_telemetry(telemetry())
        assert [row.input.kept for row in store.last_decisions(10)] == [False, False]
        assert store.inputs.waiting() == 0
        assert budget.figures()["left_out"] == {"confident_inputs": 1, "deferred_inputs": 1}
        (told,) = [row for row in store.rows(kind="event") if getattr(row, "name", "") == "writing_reduced"]
        assert ", ".join(DROP_FIRST) in told.model_dump()["detail"]
        store.count_written(0)
        assert store.dropped()["left_out"] == {"confident_inputs": 1, "deferred_inputs": 1}
        store.count_written(0)
        assert store.dropped()["left_out"] == {"confident_inputs": 1, "deferred_inputs": 1}


def test_pictures_of_disagreements_count_against_the_budget_like_all_others(tmp_path: Path) -> None:
    budget = WriteBudget(LIMIT)
    with Store.open(tmp_path / "record.sqlite", clock=HeldClock(), durability="process", budget=budget) as store:
        assert store.keep_input("a" * 64, b"before", "image/png", station="glass")
        store.count_written(LIMIT)
        assert not store.keep_input("b" * 64, b"beyond", "image/png", station="glass")
        assert store.inputs.get("b" * 64) is None and store.inputs.waiting() == 1
        assert budget.figures()["left_out"] == {"disagreement_inputs": 1}


def test_restart_goes_on_with_the_day_as_it_was(tmp_path: Path) -> None:
    path, clock = tmp_path / "record.sqlite", HeldClock()
    with Store.open(path, clock=clock, durability="process", budget=WriteBudget(LIMIT)) as store:
        store.count_written(LIMIT)
    again = WriteBudget(LIMIT)
    with Store.open(path, clock=clock, durability="process", budget=again) as store:
        again.restore(store.get_meta(WRITTEN_TODAY))
    assert again.reduced == DROP_FIRST
