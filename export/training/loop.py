"""The training loop that pictures and sounds share: epochs, checkpoints, and a network in ONNX at the end.

Rules:
- Everything random in an epoch comes from (seed, epoch), so a run that was broken off goes on exactly as it would have.
- After each epoch the whole state is on disk, written beside its place and moved there.
- A finished network is kept; it is not trained again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.onnx_export import float_onnx

EPOCH_STEPS = 25
_DECAY = 1e-2
_OVERFIT_STEPS = 120


@dataclass(frozen=True)
class Task:
    """What is trained, and on what."""

    make: Callable[[], torch.nn.Module]
    """A fresh network, ready for training."""
    loss: Callable[[torch.nn.Module, NDArray[np.intp], np.random.Generator], Tensor]
    """Loss over some examples of the pool."""
    groups: Callable[[torch.nn.Module], list[dict[str, Any]]]
    """Parameters with their learning rates."""
    answer: Callable[[torch.nn.Module, NDArray[np.intp]], NDArray[np.intp]]
    """The label that the network gives to some examples of the pool."""
    weights: NDArray[np.float64]
    """(n,) how often each example of the pool is to be drawn."""
    batch: int


def sampled(labels: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return weights with which every class is drawn equally often, very rare ones less."""
    counts = np.bincount(labels)
    wanted = np.minimum(1.0, np.sqrt(counts / max(np.median(counts[counts > 0]), 1) * 4))
    return np.asarray(wanted[labels] / np.maximum(counts[labels], 1))


def train(
    task: Task,
    chosen: NDArray[np.intp],
    *,
    steps: int,
    seed: int,
    shape: tuple[int, int, int],
    place: Path,
    step: Callable[[int, int], None],
) -> onnx.ModelProto:
    """Return a trained network in ONNX.

    Args:
        task: what is trained.
        chosen: the examples of the pool that may be used.
        steps: how many batches.
        seed: of the batches.
        shape: (channels, height, width) of one input.
        place: path without ending; `.onnx` and `.pt` are kept there.
        step: is told how many steps of how many are done.
    """
    finished, state = place.with_suffix(".onnx"), place.with_suffix(".pt")
    if finished.exists():
        return onnx.load(str(finished))
    network = task.make()
    groups = task.groups(network)
    optimizer = torch.optim.AdamW(groups, weight_decay=_DECAY)
    rates = [float(group["lr"]) for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=0.15)
    begin = _resumed(state, network, optimizer, schedule)
    step(min(begin * EPOCH_STEPS, steps), steps)
    shares = task.weights[chosen] / task.weights[chosen].sum()
    for epoch in range(begin, -(-steps // EPOCH_STEPS)):
        chance = np.random.default_rng([seed, epoch])
        torch.manual_seed(seed * 1_000_003 + epoch)
        for _ in range(min(EPOCH_STEPS, steps - epoch * EPOCH_STEPS)):
            loss = task.loss(network, chance.choice(chosen, task.batch, p=shares), chance)
            _descend(network, optimizer, loss)
            schedule.step()
        _keep(state, network, optimizer, schedule, epoch + 1)
        step(min((epoch + 1) * EPOCH_STEPS, steps), steps)
    made = float_onnx(network.eval(), shape)
    beside = finished.with_suffix(".part")
    onnx.save(made, str(beside))
    beside.replace(finished)
    state.unlink(missing_ok=True)
    return made


def overfits(task: Task, chosen: NDArray[np.intp], truth: NDArray[np.intp], seed: int) -> bool:
    """Return whether a network learns a handful of examples by heart, as any network must."""
    network = task.make()
    optimizer = torch.optim.AdamW(task.groups(network), weight_decay=0.0)
    chance = np.random.default_rng(seed)
    for number in range(_OVERFIT_STEPS):
        network.train()
        _keep_statistics(network)
        _descend(network, optimizer, task.loss(network, chosen, chance))
        if number % 20 == 19 and bool(np.all(task.answer(network, chosen) == truth)):
            return True
    return False


def _keep_statistics(network: torch.nn.Module) -> None:
    """Batch normalisation over a handful of examples would tell nothing."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()


def _descend(network: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimizer.step()


def _resumed(state: Path, network: torch.nn.Module, optimizer: Any, schedule: Any) -> int:
    """Bring back the last epoch's state and return the epoch to go on with."""
    if not state.exists():
        return 0
    kept = torch.load(state, map_location="cpu", weights_only=True)
    network.load_state_dict(kept["network"])
    optimizer.load_state_dict(kept["optimizer"])
    schedule.load_state_dict(kept["schedule"])
    return int(kept["epoch"])


def _keep(state: Path, network: torch.nn.Module, optimizer: Any, schedule: Any, epoch: int) -> None:
    beside = state.with_suffix(".part")
    kept = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
    torch.save({**kept, "schedule": schedule.state_dict()}, beside)
    beside.replace(state)
