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

from models.phone_glass.defects import U8
from models.phone_glass.network import PhoneGlassNet

_BATCH = 64
_PEAK_RATE = 6e-3
_DECAY = 1e-2
_SMOOTHING = 0.06
"""Keeps logits small, so that one step of an 8-bit output is a small step in probability."""


def fit(values: U8, targets: NDArray[np.float32], *, epochs: int, seed: int, threads: int = 1) -> PhoneGlassNet:
    """Return a network trained on pictures (n, height, width, 3) with target probabilities (n, labels)."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    chance = np.random.default_rng(seed)
    network = PhoneGlassNet(targets.shape[1])
    steps = epochs * (len(values) // _BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_PEAK_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_RATE, total_steps=steps, pct_start=0.2)
    smooth = targets * (1 - _SMOOTHING) + _SMOOTHING / targets.shape[1]
    for epoch in range(epochs):
        began, total = time.perf_counter(), 0.0
        order = chance.permutation(len(values))[: len(values) // _BATCH * _BATCH]
        for batch in order.reshape(-1, _BATCH):
            loss = functional.cross_entropy(network(_augmented(values[batch], chance)), torch.from_numpy(smooth[batch]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        mean, took_s = total * _BATCH / len(order), time.perf_counter() - began
        print(f"epoch {epoch + 1}/{epochs}: loss {mean:.4f}, {took_s:.0f} s", file=sys.stderr)
    network.eval()
    return network


def _augmented(pictures: U8, chance: np.random.Generator) -> torch.Tensor:
    """Mirror and shift a batch, and vary its exposure and tint a little."""
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    if chance.random() < 0.5:
        batch = batch.flip(2)
    if chance.random() < 0.5:
        batch = batch.flip(3)
    down, across = (int(n) for n in chance.integers(-4, 5, 2))
    batch = torch.roll(batch, (down, across), (2, 3))
    gains = 1 + chance.normal(0, 0.05, (len(pictures), 1, 1, 1)) + chance.normal(0, 0.025, (len(pictures), 3, 1, 1))
    batch = (batch * torch.from_numpy(gains.astype(np.float32))).clamp(0, 255)
    return ((batch - 128) / 128).contiguous(memory_format=torch.channels_last)
