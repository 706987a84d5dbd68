"""Made-up faults on boards: small, where they say, the same for the same seed; a network learns to see them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from models.anomaly.faults import with_faults

STRIPES = np.where(np.arange(160)[None] // 16 % 2, 230, 20).astype(np.uint8).repeat(160, 0)


def test_faults_change_little_and_the_masks_say_where() -> None:
    for seed in range(20):
        changed, faults = with_faults(STRIPES, np.random.default_rng(seed))
        assert 1 <= len(faults) <= 3
        anywhere = np.any(faults, axis=0)
        assert anywhere.mean() < 0.15
        assert np.abs(changed[~anywhere].astype(int) - STRIPES[~anywhere]).max() <= 3 * 60


def test_faults_put_one_colour_in_the_place_of_the_other() -> None:
    made = [with_faults(STRIPES, np.random.default_rng(seed)) for seed in range(20)]
    darker = [bool(np.any(STRIPES[fault] > changed[fault])) for changed, faults in made for fault in faults]
    brighter = [bool(np.any(STRIPES[fault] < changed[fault])) for changed, faults in made for fault in faults]
    assert sum(darker) >= 5
    assert sum(brighter) >= 5


def test_same_seed_makes_the_same_faults_and_leaves_the_picture_alone() -> None:
    kept = STRIPES.copy()
    first, second = (with_faults(STRIPES, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(STRIPES, kept)


@pytest.mark.torch
def test_cells_of_a_fault_are_those_that_hold_most_of_it() -> None:
    pytest.importorskip("torch")
    from models.anomaly.boards import cells_of
    from models.pcb.augment import CROP, IGNORE

    fault = np.zeros((CROP, CROP), bool)
    fault[40:48, 40:50] = True
    truth = cells_of([fault, _speck()])
    assert truth[5, 5] == 1
    assert truth[5, 6] == IGNORE, "a quarter of what the fullest cell holds"
    assert truth[10, 10] == IGNORE, "a speck of nine pixels counts for nothing"
    assert (truth == 1).sum() == 1
    assert truth[0, 0] == 0


@pytest.mark.torch
def test_network_of_clean_scans_alone_sees_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from models.anomaly import boards
    from models.pcb import fit
    from models.pcb.data import SIDE, Scan

    monkeypatch.setattr(fit, "BATCH", 4)
    clean = np.where(np.arange(SIDE)[None] // 32 % 2, 255, 0).astype(np.uint8).repeat(SIDE, 0)
    holed = clean.copy()
    holed[300:312, 330:342] = 255 - holed[300:312, 330:342]
    scan = Scan("a_1.jpg", False, clean, np.zeros((0, 4), np.float32), np.zeros(0, np.intp))
    network = boards.fit([scan], 150)
    with torch.no_grad():
        cells = network.cells(fit.as_input(np.stack([clean, holed])))[:, 0].numpy()
    assert cells[1].max() > cells[0].max() + 1
    row, column = divmod(int(cells[1].argmax()), SIDE // 8)
    assert abs(row - 38) <= 1
    assert abs(column - 41) <= 1
    ranges = boards.range_values([scan, scan])
    assert np.array_equal(ranges[1, ..., 0], clean)
    assert 0 < np.mean(ranges[0, ..., 0] != clean) < 0.05, "eight bits must reach to where faults are"


def _speck() -> NDArray[np.bool_]:
    """A fault of nine pixels in the middle of a cell."""
    from models.pcb.augment import CROP

    fault = np.zeros((CROP, CROP), bool)
    fault[82:85, 82:85] = True
    return fault
