"""The exported network says what its heads say, and its second view is the tile without its light."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the network is written in torch")

import torch

from models.cells import Frozen, Head, evidence
from models.magnetic_tile.network import TileNet, Views

pytestmark = pytest.mark.torch

DEPTHS = (5, 8)
HEIGHT, WIDTH = 160, 240


def _tile(light: float, tilt: float = 0.0) -> torch.Tensor:
    """Grooves under a lamp, more light to the right by `tilt`, with black on both sides, (1, 1, height, width)."""
    rng = np.random.default_rng(1)
    grooves = np.repeat(rng.uniform(0.8, 1.2, WIDTH // 4), 4)[None].repeat(HEIGHT, 0)
    lamp = light * (1 + tilt * np.linspace(-1, 1, WIDTH))
    picture = np.rint(grooves * lamp)
    picture[:, :48] = picture[:, -48:] = 0
    return (torch.from_numpy(picture.clip(0, 255)).float()[None, None] - 128) / 128


def test_contrast_stays_under_another_light() -> None:
    views = Views()
    usual, other = (views(tile)[:, 0, :, 64:-64] for tile in (_tile(90.0), _tile(140.0, 0.3)))
    assert (usual[0] - other[0]).abs().mean() > 0.2
    assert (usual[1] - other[1]).abs().mean() < 0.06
    assert usual[1].std() > 0.15


def test_first_view_is_the_picture_and_black_has_no_contrast() -> None:
    tile = _tile(120.0)
    views = Views()(tile)
    assert torch.equal(views[:1], tile)
    assert views[1, 0, :, :48].abs().max() == 0


def test_network_gives_the_evidence_of_its_heads() -> None:
    torch.manual_seed(3)
    tile = _tile(120.0, 0.2)
    frozen = Frozen(DEPTHS, HEIGHT, WIDTH)
    seen = np.concatenate([frozen.values(view[0].numpy()) for view in Views()(tile)], -1)
    values = torch.from_numpy(seen).float()[None]
    heads = [Head(values.mean((0, 1, 2)), values.std((0, 1, 2)) + 0.1).eval() for _ in range(3)]
    with torch.no_grad():
        expected = evidence(torch.stack([head(values) for head in heads]).mean(0))
        answer = TileNet(heads, DEPTHS).eval()(tile)
    np.testing.assert_allclose(answer["heatmap"].numpy(), expected.numpy(), atol=0.02)
    worst = float(answer["logits"][0, 1] - answer["logits"][0, 0])
    assert worst == pytest.approx(float(expected.max()) - 5, abs=0.02)
    assert answer["features"].shape == (1, 80)
