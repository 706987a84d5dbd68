"""The budget of deferrals: an hour of it is remembered, and nothing where there is none."""

import tracemalloc

from edge.work import DeferBudget
from tests.clocks import HeldClock

MANY = 20_000


def test_budget_is_of_any_hour() -> None:
    clock = HeldClock()
    budget = DeferBudget(clock)
    for _ in range(2):
        assert budget.left(2)
        budget.spend()
        clock.forward(1000)
    assert not budget.left(2) and budget.left(3)
    clock.forward(1601)
    assert budget.left(2), "the first was more than an hour ago"


def test_without_a_budget_nothing_is_remembered() -> None:
    budget = DeferBudget(HeldClock())
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(MANY):
        assert budget.left(None)
        budget.spend()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < MANY, "less than a byte for each"
    assert budget.left(2), "one that is set later begins with the last part"
