"""Finds out how large pictures must be for the network: a linear model on pretrained features at several sizes.

Rules:
- The smallest size wins that is about as good as the best; marks that vanish when a picture shrinks show here.
- Figures are cross-validated by group on a sample of the pictures; the same data gives the same answer.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from edge.preprocess import image_tensor
from edge.wire.manifest import GOOD_LABEL, ImageInput
from export import simple
from export.dataset import Dataset, read
from export.onnx_export import float_onnx
from export.quantize import to_network
from export.run import OnnxRunner
from export.training.picture_net import PictureNet, pretrained

_SAMPLE = 240
_WORTH = 0.012
"""A larger size must bring this much AUROC (or accuracy) to be worth its time."""


class _Pooled(torch.nn.Module):
    """Mean and extreme of the pretrained body's places."""

    def __init__(self, network: PictureNet) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(network.stem, *network.blocks)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return (n, 160) features of pictures."""
        places = self.body(pictures)
        mean = torch.flatten(torch.nn.functional.adaptive_avg_pool2d(places, 1), 1)
        most = torch.flatten(torch.nn.functional.max_pool2d(places, places.shape[2:]), 1)
        return torch.cat([mean, most], 1)


def best_side(
    dataset: Dataset, inputs: dict[int, ImageInput], seed: int, step: Callable[[int, int], None]
) -> tuple[int, dict[int, float]]:
    """Return the side to train at, and the figure of each that was tried.

    Args:
        dataset: checked.
        inputs: the network's input for each side, smallest first.
        seed: of sample and cross-validation.
        step: is told how many pieces of how many are done.
    """
    items = [dataset.items[i] for i in _sample(dataset, seed)]
    labels = np.array([dataset.labels.index(item.label) for item in items])
    groups = [item.group for item in items]
    pictures = [read(item).data for item in items]
    figures: dict[int, float] = {}
    for number, (side, spec) in enumerate(inputs.items()):
        runner = OnnxRunner(float_onnx(_Pooled(pretrained(2, 0)), (3, spec.height, spec.width)).SerializeToString())
        rows = []
        for at, picture in enumerate(pictures):
            assert picture is not None
            rows.append(runner.logits(to_network(image_tensor(picture, spec))[None])[0])
            step(number * len(items) + at + 1, len(inputs) * len(items))
        figure = _figure(np.stack(rows), labels, groups, dataset.labels, seed)
        if figure is None:
            return side, figures
        figures[side] = round(figure, 4)
    best = max(figures.values())
    return next(side for side, figure in figures.items() if figure >= best - _WORTH), figures


def _sample(dataset: Dataset, seed: int) -> NDArray[np.intp]:
    """Return about as many good as defective pictures."""
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(dataset.items))
    good = np.array([item.label == dataset.labels[0] for item in dataset.items])
    chosen = [*order[good[order]][: _SAMPLE // 2], *order[~good[order]][: _SAMPLE // 2]]
    return np.sort(np.array(chosen, np.intp))


def _figure(
    features: NDArray[np.float32], labels: NDArray[np.intp], groups: list[str], names: list[str], seed: int
) -> float | None:
    from sklearn.metrics import roc_auc_score

    if GOOD_LABEL in names:
        labels = (labels != names.index(GOOD_LABEL)).astype(np.intp)
    chances = simple.cross_validated(features, labels, groups, seed)
    if chances is None:
        return None
    if GOOD_LABEL in names:
        return float(roc_auc_score(labels, chances[:, 1]))
    return float(np.mean(chances.argmax(1) == labels))
