"""Trains the network on crops: the loop and its loss.

Rules:
- The same seed on the same machine gives the same network.
- Shipped are the weights averaged over the last steps (Polyak and Juditsky 1992), which short training needs.
- The worst clean cells weigh as much as all defects together: one false cell spoils a scan.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.pcb.augment import Crop, Crops
from models.pcb.data import Scan
from models.pcb.network import BoardNet

BATCH = 32
PEAK_RATE = 6e-3
_DECAY = 1e-2
_HARD_PER_CROP = 4
_AVERAGED = 0.98


def fit(scans: list[Scan], *, steps: int, seed: int, threads: int = 1) -> BoardNet:
    """Return a network trained on scans.

    Args:
        scans: clean and defective, in pairs.
        steps: batches of crops.
        seed: of crops and weights.
        threads: 1 for the same network every time.
    """
    return fit_on(Crops(scans, np.random.default_rng(seed)).draw, kinds=6, steps=steps, seed=seed, threads=threads)


def fit_on(draw: Callable[[], Crop], *, kinds: int, steps: int, seed: int, threads: int = 1) -> BoardNet:
    """Return a network for so many kinds, trained on the crops that `draw` gives; see `fit`."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    network = BoardNet(kinds).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=PEAK_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.2)
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(_AVERAGED)  # type: ignore[no-untyped-call]
    averaged = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=average, use_buffers=True)
    began, total = time.perf_counter(), 0.0
    network.train()
    for step in range(1, steps + 1):
        drawn = [draw() for _ in range(BATCH)]
        pictures = as_input(np.stack([crop.picture for crop in drawn]))
        loss = _loss(network.cells(pictures), torch.from_numpy(np.stack([crop.truth for crop in drawn])))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 2.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(network)
        total += float(loss.detach())
        if step % 100 == 0:
            print(f"step {step}/{steps}: loss {total / 100:.3f}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
            total = 0.0
    result = averaged.module
    assert isinstance(result, BoardNet)
    return result.eval()


def as_input(pictures: NDArray[np.uint8]) -> Tensor:
    """Return gray pictures (n, height, width) as the network takes them, (n, 1, height, width)."""
    values = (torch.from_numpy(np.ascontiguousarray(pictures)).float() - 128) / 128
    return values[:, None].contiguous(memory_format=torch.channels_last)


def _loss(evidence: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy over good and the kinds: on defects, on the hardest clean cells, on all clean cells."""
    logits = torch.cat([torch.zeros_like(evidence[:, :1]), evidence], 1)
    losses = functional.cross_entropy(logits, truth.clamp(min=0), reduction="none")
    defect, clean = truth > 0, truth == 0
    hardest = torch.topk(losses[clean], min(int(clean.sum()), len(truth) * _HARD_PER_CROP))[0]
    found = losses[defect].sum() / defect.sum().clamp(min=1)
    return found + hardest.mean() + losses[clean].mean()
