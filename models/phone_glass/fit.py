"""Trains the network on a set: the loop and the small changes that pictures undergo in it.

Rules:
- The same seed on the same machine gives the same network.
- Pictures stay bytes until their batch is due, so that memory stays small.
"""

import sys
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.phone_glass.data import Set, soft_targets
from models.phone_glass.network import PhoneGlassNet
from models.phone_glass.parts import LABELS

_BATCH = 64
_PEAK_RATE = 5e-3
_DECAY = 1e-2
_SMOOTHING = 0.06
"""Keeps logits small, so that one step of an 8-bit output is a small step in probability."""
_CELL_WEIGHT = 0.5


def fit(examples: Set, *, epochs: int, seed: int, threads: int = 1) -> PhoneGlassNet:
    """Return a network trained on a set."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    chance = np.random.default_rng(seed)
    network = PhoneGlassNet(len(LABELS))
    size = min(_BATCH, len(examples.labels))
    steps = epochs * (len(examples.labels) // size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_PEAK_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_RATE, total_steps=steps, pct_start=0.2)
    targets = soft_targets(examples)
    targets = targets * (1 - _SMOOTHING) + _SMOOTHING / targets.shape[1]
    for epoch in range(epochs):
        began, total = time.perf_counter(), 0.0
        order = chance.permutation(len(targets))[: len(targets) // size * size]
        for batch in order.reshape(-1, size):
            loss = _loss(network, examples, targets, batch, chance)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        mean, took_s = total * size / len(order), time.perf_counter() - began
        print(f"epoch {epoch + 1}/{epochs}: loss {mean:.4f}, {took_s:.0f} s", file=sys.stderr, flush=True)
    network.eval()
    return network


def _loss(
    network: PhoneGlassNet,
    examples: Set,
    targets: NDArray[np.float32],
    batch: NDArray[np.intp],
    chance: np.random.Generator,
) -> torch.Tensor:
    """Cross-entropy of whole pictures, and of the cells of those that can be read."""
    cells = torch.from_numpy(examples.cells[batch] * examples.labels[batch][:, None, None])
    pictures, cells = _augmented(torch.from_numpy(examples.values[batch]), cells, chance)
    whole, parts = network.with_cells(pictures)
    loss = functional.cross_entropy(whole, torch.from_numpy(targets[batch]))
    each = functional.cross_entropy(parts, cells, reduction="none")
    readable = torch.from_numpy(examples.readable[batch])[:, None, None]
    for chosen in ((cells > 0) & readable, (cells == 0) & readable):
        if bool(chosen.any()):
            loss = loss + _CELL_WEIGHT * each[chosen].mean()
    return loss


def _augmented(
    pictures: torch.Tensor, cells: torch.Tensor, chance: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror a batch and shift it a little, with its cells, and vary exposure and tint."""
    batch = pictures.permute(0, 3, 1, 2).float()
    for axis in (1, 2):
        if chance.random() < 0.5:
            batch, cells = batch.flip(axis + 1), cells.flip(axis)
    down, across = (int(n) for n in chance.integers(-3, 4, 2))
    batch = torch.roll(batch, (down, across), (2, 3))
    count = len(batch)
    gains = 1 + chance.normal(0, 0.05, (count, 1, 1, 1)) + chance.normal(0, 0.025, (count, 3, 1, 1))
    batch = (batch * torch.from_numpy(gains.astype(np.float32))).clamp(0, 255)
    return ((batch - 128) / 128).contiguous(memory_format=torch.channels_last), cells
