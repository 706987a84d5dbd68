"""Trains the network on features of changed copies of recordings: the loop.

Rules:
- The same seed on the same machine gives the same network.
- Real and synthesised speech keep their shares; every copy is changed again each time it is used.
"""

import sys
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.spoken_digits.augment import other_features
from models.spoken_digits.network import DigitNet

F32 = NDArray[np.float32]

BATCH = 64
PEAK_RATE = 4e-3
_DECAY = 1e-2
_SMOOTHING = 0.05


def fit(values: F32, labels: NDArray[np.intp], *, steps: int, seed: int, threads: int = 1) -> DigitNet:
    """Return a network trained on features (n, frames, mel_bands, 1) and their digits (n,)."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    chance = np.random.default_rng(seed)
    network = DigitNet()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.2)
    began, total = time.perf_counter(), 0.0
    for step in range(1, steps + 1):
        batch = chance.integers(len(values), size=BATCH)
        inputs = other_features(torch.from_numpy(values[batch]).permute(0, 3, 1, 2), chance)
        logits = network(inputs.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits, torch.from_numpy(labels[batch]), label_smoothing=_SMOOTHING)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
        if step % 200 == 0:
            print(f"step {step}/{steps}: loss {total / 200:.3f}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
            total = 0.0
    return network.eval()
