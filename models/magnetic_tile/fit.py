"""Trains the head on what the frozen part sees of each cell: the pool, the loop and its loss.

Rules:
- The same seed on the same machine gives the same network.
- The frozen part goes over each view of a picture once; its answers serve every head, with one fold held out or none.
- A masked picture must be found somewhere in its mask, not in all of it: the inside of a large uneven patch looks
  like any other tile.
- Parts are drawn, then one of their pictures: no tile counts for more because it was photographed more often.
"""

import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from export.training.lite0 import channels_after
from models.cells import Frozen, Head
from models.magnetic_tile.augment import other_look
from models.magnetic_tile.data import INPUT, Photo
from models.magnetic_tile.network import VIEWS, Views

DEPTHS = (5, 8, 11)
"""Spots at 8 pixels, texture at 16, and what lies 100 pixels around."""
STRIDE = 16
"""Pixels of the input per cell, each way."""
GOOD, REAL, MADE = 0, 1, 2
DIETS = ((False, (6, 6, 0)), (True, (6, 5, 1)), (False, (6, 6, 0)), (True, (6, 4, 2)))
"""One head each: whether it sees the other looks, and how many good, really defective and made-up pictures a batch
holds. Heads that were fed otherwise err otherwise, so their mean is better than any of them."""
STEPS = 250
BATCH = 12
PEAK_RATE = 4e-3
_DECAY = 5e-2
_MASKED_SHARE = 0.08
"""Share of a cell under the mask from which it counts as defective."""
_FOUND_SHARE = 0.3
"""So much of the masked cells must score high, the best ones."""
_HARD = 6
"""So many of the worst clean cells per picture weigh as much as a defect: one false cell spoils a picture."""


@dataclass(frozen=True)
class Pool:
    """Pictures as the frozen part sees them, originals first, in the order of the photos, then their other looks."""

    values: NDArray[np.float16]
    """(n, rows, columns, numbers): of the first view, then of the second."""
    covered: NDArray[np.float32]
    """(n, rows, columns): the share of each cell that is under the mask."""
    photo: NDArray[np.intp]
    """(n,) which photograph it shows."""
    kind: NDArray[np.intp]
    """(n,) GOOD, REAL or MADE: with a real or a made-up defect."""


def make_pool(photos: list[Photo], looks: int, seed: int) -> Pool:
    """Run the frozen part over every photograph and `looks` other looks of each."""
    rng = np.random.default_rng(seed)
    frozen, began = Frozen(DEPTHS, INPUT.height, INPUT.width), time.perf_counter()
    count, prepare = len(photos) * (1 + looks), Views()
    rows, columns = INPUT.height // STRIDE, INPUT.width // STRIDE
    covered = np.zeros((count, rows, columns), np.float32)
    numbers = channels_after(DEPTHS[0]) + sum(channels_after(depth) for depth in DEPTHS)
    values = np.zeros((count, rows, columns, VIEWS * numbers), np.float16)
    for place in range(count):
        photo = photos[place % len(photos)]
        picture, mask = (photo.picture, photo.mask) if place < len(photos) else other_look(photo, rng)
        views = prepare((torch.from_numpy(picture).float()[None, None] - 128) / 128)
        values[place] = np.concatenate([frozen.values(view[0].numpy()) for view in views], -1)
        covered[place] = mask.reshape(rows, STRIDE, columns, STRIDE).mean((1, 3))
        if place % 200 == 0:
            print(f"picture {place}/{count}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    index = np.arange(count) % len(photos)
    real = np.array([photo.defective for photo in photos])[index]
    return Pool(values, covered, index, np.where(real, REAL, np.where(covered.any((1, 2)), MADE, GOOD)))


def fit_heads(pool: Pool, photos: list[Photo], chosen: NDArray[np.bool_], seed: int) -> list[Head]:
    """Return one head per diet, trained on the chosen photographs (n,) and their other looks."""
    return [
        fit(pool, photos, usable(pool, chosen, looks=looks), shares, seed + number)
        for number, (looks, shares) in enumerate(DIETS)
    ]


def fit(pool: Pool, photos: list[Photo], places: NDArray[np.intp], shares: tuple[int, int, int], seed: int) -> Head:
    """Return a head trained on these places of the pool."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    head = Head(*moments(pool.values[places[:: max(1, len(places) // 120)]]))
    parts = np.array([photo.part for photo in photos])[pool.photo]
    kinds = [_Draw(places[pool.kind[places] == kind], parts, rng) for kind in (GOOD, REAL, MADE)]
    optimizer = torch.optim.AdamW(head.parameters(), PEAK_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=STEPS)
    head.train()
    for _ in range(STEPS):
        batch = np.concatenate([draw.take(share) for draw, share in zip(kinds, shares, strict=True)])
        scores = head(torch.from_numpy(pool.values[batch]).float())
        loss = cell_loss(scores, torch.from_numpy(pool.covered[batch]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return head.eval()


def usable(pool: Pool, chosen: NDArray[np.bool_], *, looks: bool) -> NDArray[np.intp]:
    """Return the places of the pool that show chosen photographs (n,), with or without other looks."""
    originals = np.arange(len(pool.photo)) < len(chosen)
    return np.flatnonzero(chosen[pool.photo] & (originals | looks))


class _Draw:
    """Draws pictures by part: each part alike, then one of its pictures."""

    def __init__(self, places: NDArray[np.intp], parts: NDArray[np.intp], rng: np.random.Generator) -> None:
        self._rng = rng
        self._by_part = [places[parts[places] == part] for part in np.unique(parts[places])]

    def take(self, count: int) -> NDArray[np.intp]:
        if not self._by_part:
            return np.zeros(0, np.intp)
        groups = [self._by_part[i] for i in self._rng.integers(len(self._by_part), size=count)]
        return np.array([group[self._rng.integers(len(group))] for group in groups], np.intp)


def cell_loss(scores: Tensor, covered: Tensor) -> Tensor:
    """Each mask found, the worst clean cells of each picture, all clean cells."""
    found = [_missed(one[mask >= _MASKED_SHARE]) for one, mask in zip(scores, covered, strict=True)]
    masked = [loss for loss in found if loss is not None]
    clean = torch.where(covered == 0, scores, torch.full_like(scores, -8.0)).flatten(1)
    worst = functional.softplus(torch.topk(clean, _HARD, 1)[0]).mean(1)
    # What looks odd beside a mask may belong to the defect, so it weighs less.
    weight = torch.where(covered.flatten(1).any(1), 0.15, 1.0)
    hard = (worst * weight).sum() * 2 / len(scores)
    lost = torch.stack(masked).mean() if masked else scores.sum() * 0
    return lost + hard + functional.softplus(clean).mean()


def _missed(scores: Tensor) -> Tensor | None:
    if not len(scores):
        return None
    best = torch.topk(scores, max(1, int(_FOUND_SHARE * len(scores))))[0]
    return functional.softplus(-best).mean()


def moments(values: NDArray[np.float16]) -> tuple[Tensor, Tensor]:
    """Return mean and spread (numbers,) of values (n, rows, columns, numbers)."""
    sample = torch.from_numpy(values).float().flatten(0, 2)
    return sample.mean(0), sample.std(0) + 1e-3
