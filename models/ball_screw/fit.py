"""Trains the network's late part on a pool of crops: the pool, the loop and its loss.

Rules:
- The same seed on the same machine gives the same network.
- The frozen early part goes over each crop once; its answers serve every network that is trained, with some
  positions held out or not: a crop that shows anything of a held-out position is not used.
- Batch normalisation keeps its pretrained statistics: crops of few screws would bend them.
- Every cell has its truth from the outlines; cells at a pit's edge count for nothing.
"""

import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from export.training.lite0 import load_pretrained
from models.ball_screw.augment import Crops
from models.ball_screw.data import DOUBTFUL, Photo, track_cells
from models.ball_screw.network import STRIDE, PitNet

BATCH = 32
PEAK_RATE = 2e-3
_BODY_SHARE = 0.25
"""The pretrained part learns at this share of the head's rate."""
_DECAY = 1e-2
_HARD_PER_CROP = 6
"""So many of the worst negative cells per crop weigh as much as all pits together: one false cell spoils a picture."""
_PITTED_SHARE, _TOUCHED_SHARE = 0.08, 0.02
"""Share of a cell under a pit that makes it pitted; or this less, if no neighbour holds more of the same pit."""


@dataclass(frozen=True)
class Pool:
    """Crops as the frozen early part sees them."""

    values: NDArray[np.float16]
    """(n, channels, SIDE / 8, SIDE / 8)."""
    covered: NDArray[np.float32]
    """(n, 1, SIDE / STRIDE, SIDE / STRIDE): the share of each cell that is under a pit."""
    positions: list[frozenset[str]]

    def without(self, position: str) -> NDArray[np.intp]:
        """Return the crops that show nothing of a position."""
        return np.array([i for i, shown in enumerate(self.positions) if position not in shown], np.intp)


def make_pool(photos: list[Photo], count: int, seed: int, threads: int = 1) -> Pool:
    """Draw crops from photographs, doubtful labels left out, and run the early part over them."""
    torch.set_num_threads(threads)
    network = _fresh(seed)
    crops = Crops([photo for photo in photos if photo.name not in DOUBTFUL], np.random.default_rng(seed))
    values, covered = [], []
    positions: list[frozenset[str]] = []
    began = time.perf_counter()
    for start in range(0, count, BATCH):
        drawn = [crops.draw() for _ in range(min(BATCH, count - start))]
        with torch.no_grad():
            values.append(network.early(as_input(np.stack([crop.picture for crop in drawn]))).half().numpy())
        masks = torch.from_numpy(np.stack([crop.mask for crop in drawn]))[:, None]
        covered.append(functional.avg_pool2d(masks, STRIDE).numpy())
        positions.extend(crop.positions for crop in drawn)
        if start % (BATCH * 25) == 0:
            print(f"crop {start}/{count}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return Pool(np.concatenate(values), np.concatenate(covered), positions)


def fit(pool: Pool, chosen: NDArray[np.intp], *, steps: int, seed: int) -> PitNet:
    """Return a network trained on the chosen crops of a pool."""
    network = _fresh(seed)
    chance = np.random.default_rng(seed)
    optimizer = _optimizer(network)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [PEAK_RATE, PEAK_RATE * _BODY_SHARE], total_steps=steps, pct_start=0.15
    )
    began, total = time.perf_counter(), 0.0
    for step in range(1, steps + 1):
        batch = chance.choice(chosen, BATCH)
        values = torch.from_numpy(pool.values[batch]).float().contiguous(memory_format=torch.channels_last)
        loss = _loss(network.late(values), torch.from_numpy(pool.covered[batch]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
        if step % 100 == 0:
            print(f"step {step}/{steps}: loss {total / 100:.3f}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
            total = 0.0
    return network


def as_input(pictures: NDArray[np.uint8]) -> Tensor:
    """Return pictures (n, height, width, 3) BGR as the network takes them."""
    channels_first = torch.from_numpy(np.ascontiguousarray(pictures[..., ::-1])).permute(0, 3, 1, 2)
    return ((channels_first.float() - 128) / 128).contiguous(memory_format=torch.channels_last)


def _fresh(seed: int) -> PitNet:
    torch.manual_seed(seed)
    network = PitNet(track_cells(STRIDE))
    load_pretrained(network)
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _optimizer(network: PitNet) -> torch.optim.Optimizer:
    body = network.late_parameters()
    head = [*network.fine.parameters(), *network.mix.parameters(), *network.score.parameters()]
    groups = [{"params": head, "lr": PEAK_RATE}, {"params": body, "lr": PEAK_RATE * _BODY_SHARE}]
    return torch.optim.AdamW(groups, weight_decay=_DECAY)


def _loss(scores: Tensor, covered: Tensor) -> Tensor:
    """Binary cross-entropy: over pitted cells, over the hardest clean cells, over all clean cells."""
    near = functional.max_pool2d(covered, 3, 1, 1)
    pitted = (covered >= _PITTED_SHARE) | ((covered > _TOUCHED_SHARE) & (covered >= near * 0.999))
    clean = near == 0
    losses = functional.binary_cross_entropy_with_logits(scores, pitted.float(), reduction="none")
    hardest = torch.topk(losses[clean], min(int(clean.sum()), len(scores) * _HARD_PER_CROP))[0]
    found = (losses * pitted).sum() / pitted.float().sum().clamp(min=1)
    return found + hardest.mean() + losses[clean].mean()
