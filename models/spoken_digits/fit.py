"""Trains the network on features of changed copies of recordings: the loop.

Rules:
- The same seed on the same machine gives the same network.
- Each kind of sound keeps its share of every batch; every copy is changed again each time it is used.
- What is kept is the running mean of the weights, which is steadier than the last step's.
"""

import copy
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.commands.network import CommandNet
from models.spoken_digits.augment import other_features
from models.spoken_digits.network import digit_network

F32 = NDArray[np.float32]

BATCH = 64
PEAK_RATE = 2e-3
_DECAY = 1e-2
_SMOOTHING = 0.05
_MEAN_KEEPS = 0.99


@dataclass(frozen=True)
class Pool:
    """Features (n, frames, coefficients, 1) of one kind of sound, their labels (n,) and their share of a batch."""

    values: F32
    labels: NDArray[np.intp]
    share: float


def fit(start: CommandNet, pools: Sequence[Pool], *, steps: int, seed: int) -> CommandNet:
    """Return a network trained from `start`, in evaluation mode."""
    torch.set_num_threads(1)
    chance = np.random.default_rng(seed)
    network = digit_network(start, seed).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.2)
    began, total = time.perf_counter(), 0.0
    for step in range(1, steps + 1):
        values, labels = _batch(pools, chance)
        inputs = other_features(torch.from_numpy(values).permute(0, 3, 1, 2), chance)
        logits = network(inputs.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits, torch.from_numpy(labels), label_smoothing=_SMOOTHING)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        _average(mean, network, step)
        total += float(loss.detach())
        if step % 200 == 0:
            print(f"step {step}/{steps}: loss {total / 200:.3f}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
            total = 0.0
    return mean


def chances_of(network: CommandNet, values: F32) -> F32:
    """Return probabilities (n, labels) for features (n, frames, coefficients, 1)."""
    with torch.no_grad():
        parts = torch.split(torch.from_numpy(values).permute(0, 3, 1, 2), 512)
        logits = torch.cat([network(part.contiguous(memory_format=torch.channels_last)) for part in parts])
        return np.asarray(functional.softmax(logits, 1).numpy(), np.float32)


def _batch(pools: Sequence[Pool], chance: np.random.Generator) -> tuple[F32, NDArray[np.intp]]:
    shares = np.array([pool.share for pool in pools])
    counts = np.floor(BATCH * shares / shares.sum()).astype(int)
    counts[0] += BATCH - counts.sum()
    drawn = [chance.integers(len(pool.values), size=count) for pool, count in zip(pools, counts, strict=True)]
    values = np.concatenate([pool.values[index] for pool, index in zip(pools, drawn, strict=True)])
    return values, np.concatenate([pool.labels[index] for pool, index in zip(pools, drawn, strict=True)])


def _average(mean: CommandNet, network: CommandNet, step: int) -> None:
    keep = min(_MEAN_KEEPS, step / (step + 10))
    with torch.no_grad():
        for target, source in zip(mean.parameters(), network.parameters(), strict=True):
            target.lerp_(source, 1 - keep)
