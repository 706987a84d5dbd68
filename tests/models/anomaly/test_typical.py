"""What is typical of good cells: far from it scores high, and the network says the same as the plain formula."""

import numpy as np
import pytest

from models.anomaly.typical import judged_cells, learn, worst_place


def test_cells_unlike_the_good_ones_are_far() -> None:
    rng = np.random.default_rng(0)
    good = [rng.normal(0, 1, (10, 10, 8)).astype(np.float16) for _ in range(5)]
    everywhere = np.ones((10, 10), bool)
    typical = learn(good, [everywhere] * 5, seed=1)
    odd = good[0].copy()
    odd[4, 5] += 9
    assert (
        worst_place(typical.distances(odd), everywhere)[0]
        > 1.3 * worst_place(typical.distances(good[1]), everywhere)[0]
    )
    assert divmod(int(typical.distances(odd).argmax()), 10) == (4, 5)


def test_black_border_and_what_is_beside_it_is_not_judged() -> None:
    picture = np.zeros((160, 160), np.uint8)
    picture[32:128, 32:128] = 100
    judged = judged_cells(picture, 16)
    assert judged.sum() == 16
    assert judged[3:7, 3:7].all()


@pytest.mark.torch
def test_network_gives_the_distances_of_the_formula() -> None:
    torch = pytest.importorskip("torch")
    from models.anomaly.typical import TypicalNet
    from models.cells import Frozen

    rng = np.random.default_rng(5)
    pictures = [rng.integers(60, 200, (128, 160)).astype(np.uint8) for _ in range(8)]
    frozen = Frozen((5, 8), 128, 160)
    values = [frozen.values(picture) for picture in pictures]
    judged = [judged_cells(picture, 16) for picture in pictures]
    typical = learn(values, judged, seed=1)
    score, heat = worst_place(typical.distances(values[0]), judged[0])
    network = TypicalNet(typical, (5, 8), 16, limit=1.0, slope=4.0, size=(8, 10)).eval()
    with torch.no_grad():
        answer = network((torch.from_numpy(pictures[0]).float()[None, None] - 128) / 128)
    np.testing.assert_allclose(answer["heatmap"][0].numpy(), heat, atol=0.02)
    assert float(answer["logits"][0, 1] - answer["logits"][0, 0]) == pytest.approx(4 * (score - 1.0), abs=0.1)
