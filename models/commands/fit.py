"""Teaches the published network to hear through noise: labels and its own answers without the noise.

Rules:
- The same seed on the same machine gives the same network.
- The teacher is the published network itself and never changes (distillation: Hinton et al. 2015, arXiv:1503.02531).
- What is kept is the running mean of the weights, which is steadier than the last step's.
"""

import copy
import sys
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.commands.network import CommandNet

F32 = NDArray[np.float32]

BATCH = 128
PEAK_RATE = 1.5e-3
TEMPERATURE = 2.0
TEACHER_SHARE = 0.5
"""Of the loss; the rest are the labels."""
_DECAY = 1e-3
_SMOOTHING = 0.05
_MEAN_KEEPS = 0.995


def fit(
    start: CommandNet,
    quiet: F32,
    noisy: F32,
    labels: NDArray[np.intp],
    *,
    epochs: int,
    seed: int,
) -> CommandNet:
    """Return a network trained from `start`.

    Args:
        start: the teacher, and where training begins.
        quiet: (n, 49, 10, 1) features that the teacher hears.
        noisy: (n, 49, 10, 1) the same sounds with noise.
        labels: (n,).
        epochs: how often each is heard.
        seed: of the order and of dropout.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    chance = np.random.default_rng(seed)
    soft = functional.softmax(logits_of(start, quiet) / TEMPERATURE, 1)
    inputs, hard = torch.from_numpy(noisy).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)
    network = copy.deepcopy(start).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean = copy.deepcopy(network).eval()
    steps = epochs * (len(labels) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.15)
    began, total = time.perf_counter(), 0.0
    for step in range(1, steps + 1):
        at = torch.from_numpy(chance.integers(len(labels), size=BATCH))
        logits = network(inputs[at].contiguous(memory_format=torch.channels_last))
        by_label = functional.cross_entropy(logits, hard[at], label_smoothing=_SMOOTHING)
        by_teacher = functional.cross_entropy(logits / TEMPERATURE, soft[at]) * TEMPERATURE**2
        loss = (1 - TEACHER_SHARE) * by_label + TEACHER_SHARE * by_teacher
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


def logits_of(network: CommandNet, values: F32) -> torch.Tensor:
    """Return logits (n, 12) for features (n, 49, 10, 1), in evaluation mode."""
    network.eval()
    with torch.no_grad():
        parts = torch.split(torch.from_numpy(values).permute(0, 3, 1, 2), 512)
        return torch.cat([network(part.contiguous(memory_format=torch.channels_last)) for part in parts])


def _average(mean: CommandNet, network: CommandNet, step: int) -> None:
    keep = min(_MEAN_KEEPS, step / (step + 10))
    with torch.no_grad():
        for target, source in zip(mean.parameters(), network.parameters(), strict=True):
            target.lerp_(source, 1 - keep)
