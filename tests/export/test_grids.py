"""Nested figures as grids: nothing is lost, what repeats stands in one grid."""

from export.grids import grids, shown


def test_figures_that_repeat_stand_in_one_grid_and_deeper_ones_in_their_own() -> None:
    boards = {
        "a": {"auroc": 0.99, "auroc_interval": [0.98, 1.0], "boxes": {"open": 3}},
        "b": {"auroc": 0.97, "auroc_interval": [0.9, 1.0], "boxes": {"open": 4}},
    }
    first, *deeper = grids("boards", boards)
    assert first.head == ["", "auroc", "auroc interval"]
    assert first.lines == [["a", "0.99", "0.98–1"], ["b", "0.97", "0.9–1"]]
    assert [grid.title for grid in deeper] == ["boards: a boxes", "boards: b boxes"]
    assert deeper[1].lines == [["open", "4"]]


def test_mappings_that_have_little_in_common_are_not_forced_into_one_grid() -> None:
    found = list(grids("metrics", {"export": {"count": 3}, "boards": {"auroc": 0.9}}))
    assert [grid.title for grid in found] == ["metrics: export", "metrics: boards"]


def test_long_lists_are_counted_and_short_ones_shown() -> None:
    assert shown([1, 2, 3]) == "1, 2, 3"
    assert shown([[0.1, 0.2, 3]] * 11) == "11 entries"
    assert shown(True) == "True"
    assert shown(12345) == "12,345"
