"""Trains on pictures: a pool of changed copies as the frozen part sees them, and the loop over it.

Rules:
- The frozen early part goes over each copy once; its answers serve every network that is trained.
- Copy 0 of a picture is the picture itself; the others are turned, mirrored, lit, blurred, all by their own number,
  so that a pool that was broken off goes on as if nothing had happened.
- Classes are drawn equally often; calibration puts the true shares back.
- A mask says which cells of the heat map are defective; without one, the worst cell answers for the picture.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edge.preprocess import image_tensor, resize
from edge.wire.manifest import ImageInput
from export.dataset import Item, read
from export.onnx_export import float_onnx
from export.quantize import to_network
from export.run import OnnxRunner
from export.training.loop import Task, sampled
from export.training.picture_net import (
    EARLY_BLOCKS,
    EARLY_CHANNELS,
    EARLY_STRIDE,
    STRIDE,
    PictureNet,
    pretrained,
)

U8 = NDArray[np.uint8]
BATCH = 24
PEAK_RATE = 2e-3
BODY_SHARE = 0.25
"""The pretrained part learns at this share of the head's rate."""
_POOL_BATCH = 16
_MASKED_SHARE = 0.02
"""Share of a cell under a mask from which on the cell is defective."""
_SMOOTHING = 0.02
_SHARPNESS = 3.0


@dataclass(frozen=True)
class PicturePool:
    """Copies of pictures as the frozen part sees them."""

    values: NDArray[np.float16]
    """(n, channels, rows, columns), on disk."""
    covered: NDArray[np.float16]
    """(n, heat rows, heat columns): share under a mask; below 0 where nothing is known."""
    owner: NDArray[np.intp]
    """(n,) which item a copy was made of."""


def values_of(items: list[Item], spec: ImageInput) -> U8:
    """Return pictures as the device's preprocessing gives them, (n, height, width, 3) RGB."""
    return np.concatenate([image_tensor(_picture(item), spec) for item in items])


def make_pool(
    items: list[Item], spec: ImageInput, copies: int, folder: Path, seed: int, step: Callable[[int, int], None]
) -> PicturePool:
    """Return `copies` changed copies of every item as the frozen part sees them; what is on disk is not made again."""
    count = len(items) * copies
    shape = (count, EARLY_CHANNELS, spec.height // EARLY_STRIDE, spec.width // EARLY_STRIDE)
    cells = (count, spec.height // STRIDE, spec.width // STRIDE)
    owner = np.repeat(np.arange(len(items)), copies)
    state = folder / "pool.json"
    done = int(json.loads(state.read_text())["done"]) if state.exists() else 0
    frozen = _frozen(spec)
    values = _on_disk(folder / "pool.npy", shape, fresh=done == 0)
    covered = _on_disk(folder / "masks.npy", cells, fresh=done == 0)
    plain = _Plain(items, spec)
    step(done, count)
    for start in range(done, count, _POOL_BATCH):
        numbers = range(start, min(start + _POOL_BATCH, count))
        some = [_copy(*plain.of(int(owner[i])), i % copies, seed * 1_000_003 + i) for i in numbers]
        pictures = np.stack([picture for picture, _ in some])
        values[start : start + len(some)] = frozen.logits(to_network(pictures)[:, None]).astype(np.float16)
        covered[start : start + len(some)] = np.stack([_cells(mask, cells[1:]) for _, mask in some])
        if start // _POOL_BATCH % 10 == 9 or start + len(some) == count:
            values.flush()
            covered.flush()
            _write(state, json.dumps({"done": start + len(some)}))
        step(start + len(some), count)
    return PicturePool(values, covered, owner)


def task(pool: PicturePool, labels: NDArray[np.intp], label_count: int, good: int | None, seed: int) -> Task:
    """Return what the training loop needs for pictures.

    Args:
        pool: the copies.
        labels: (items,) label of each item.
        label_count: how many labels there are.
        good: the label of good parts, None where there is none.
        seed: of the head's start.
    """

    def loss(network: torch.nn.Module, batch: NDArray[np.intp], _chance: np.random.Generator) -> Tensor:
        assert isinstance(network, PictureNet)
        values = torch.from_numpy(np.asarray(pool.values[batch])).float().contiguous(memory_format=torch.channels_last)
        truth = torch.from_numpy(labels[pool.owner[batch]])
        logits, heat, _ = network.late(values)
        total = functional.cross_entropy(logits, truth, label_smoothing=_SMOOTHING)
        if good is not None:
            covered = torch.from_numpy(np.asarray(pool.covered[batch], np.float32))
            total = total + _heat_loss(heat[:, 0], covered, truth != good)
        return total

    def make() -> torch.nn.Module:
        network = pretrained(label_count, seed)
        network.drop.train()
        return network

    def groups(network: torch.nn.Module) -> list[dict[str, object]]:
        assert isinstance(network, PictureNet)
        head, body = network.head_parameters(), network.body_parameters()
        return [{"params": head, "lr": PEAK_RATE}, {"params": body, "lr": PEAK_RATE * BODY_SHARE}]

    def answer(network: torch.nn.Module, chosen: NDArray[np.intp]) -> NDArray[np.intp]:
        assert isinstance(network, PictureNet)
        values = torch.from_numpy(np.asarray(pool.values[chosen])).float()
        with torch.no_grad():
            return np.asarray(network.eval().late(values)[0].argmax(1).numpy(), np.intp)

    return Task(make, loss, groups, answer, sampled(labels[pool.owner]), BATCH)


def _frozen(spec: ImageInput) -> OnnxRunner:
    """Return the frozen part on onnxruntime, where it takes a tenth of its time in torch."""
    network = pretrained(2, seed=0)
    early = torch.nn.Sequential(network.stem, *network.blocks[:EARLY_BLOCKS])
    return OnnxRunner(float_onnx(early, (3, spec.height, spec.width)).SerializeToString())


def _heat_loss(heat: Tensor, covered: Tensor, defective: Tensor) -> Tensor:
    """Cells under masks and cells of good pictures have a truth; else about the worst cell has the picture's."""
    known = (covered >= 0).flatten(1).all(1)
    truth = (covered >= _MASKED_SHARE).float()
    losses = functional.binary_cross_entropy_with_logits(heat, truth, reduction="none")
    total = heat.new_zeros(())
    if bool(known.any()):
        marked = truth[known] > 0
        found = losses[known][marked].sum() / marked.float().sum().clamp(min=1)
        clean = losses[known][~marked]
        hardest = torch.topk(clean, min(len(clean), 6 * int(known.sum())))[0]
        total = total + 0.5 * (found + hardest.mean() + clean.mean())
    if bool((~known).any()):
        # A soft maximum: the plain one settles early on whichever cell happens to lead, often one at the border.
        cells = heat[~known].flatten(1)
        worst = (torch.logsumexp(_SHARPNESS * cells, 1) - math.log(cells.shape[1])) / _SHARPNESS
        total = total + 0.5 * functional.binary_cross_entropy_with_logits(worst, defective[~known].float())
    return total


def _picture(item: Item) -> U8:
    data = read(item).data
    assert data is not None, f"{item.file} was readable and is not any more"
    return np.asarray(data, np.uint8)


def _mask(item: Item, spec: ImageInput) -> NDArray[np.float32]:
    """Return 1 where defective, 0 where not, −1 everywhere if nobody has said, at the network's size."""
    if item.mask is not None:
        found = cv2.imread(str(item.mask), cv2.IMREAD_GRAYSCALE)
        if found is not None:
            marked = np.where(found > 127, 255, 0).astype(np.uint8)
            small = resize(marked, spec.width, spec.height, keep_aspect=spec.resize == "letterbox")
            return np.asarray(small.astype(np.float32) / 255, np.float32)
    known = item.label == "good"
    return np.full((spec.height, spec.width), 0.0 if known else -1.0, np.float32)


class _Plain:
    """Pictures with their masks at the network's size; the last one is kept, since its copies follow each other."""

    def __init__(self, items: list[Item], spec: ImageInput) -> None:
        self._items, self._spec = items, spec
        self._at, self._last = -1, (np.zeros(0, np.uint8), np.zeros(0, np.float32))

    def of(self, at: int) -> tuple[U8, NDArray[np.float32]]:
        """Return picture (height, width, 3) RGB and mask (height, width) of an item."""
        if at != self._at:
            item = self._items[at]
            self._at, self._last = at, (image_tensor(_picture(item), self._spec)[0], _mask(item, self._spec))
        return self._last


def _copy(picture: U8, mask: NDArray[np.float32], version: int, seed: int) -> tuple[U8, NDArray[np.float32]]:
    if version == 0:
        return picture, mask
    chance = np.random.default_rng(seed)
    picture, mask = _moved(picture, mask, chance)
    return _seen_otherwise(picture, chance), mask


def _moved(picture: U8, mask: NDArray[np.float32], chance: np.random.Generator) -> tuple[U8, NDArray[np.float32]]:
    rows, columns = mask.shape
    scale = float(np.exp(chance.normal(0, 0.08)))
    turn = np.asarray(cv2.getRotationMatrix2D((columns / 2, rows / 2), chance.normal(0, 4), scale), np.float64)
    turn[:, 2] += chance.normal(0, 0.03, 2) * np.array([columns, rows])
    moved = cv2.warpAffine(picture, turn, (columns, rows), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    truth = cv2.warpAffine(mask, turn, (columns, rows), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    for axis in (0, 1):
        if chance.random() < 0.5:
            moved, truth = np.flip(moved, axis), np.flip(truth, axis)
    return np.ascontiguousarray(moved, np.uint8), np.ascontiguousarray(truth, np.float32)


def _seen_otherwise(picture: U8, chance: np.random.Generator) -> U8:
    """Another light, another focus, a noisier camera."""
    # A light does to all pixels of one level the same: 256 levels are computed instead of a picture.
    levels = np.arange(256, dtype=np.float32)[:, None] / 255
    levels = levels ** float(np.exp(chance.normal(0, 0.15)))
    levels = (levels - 0.5) * float(np.exp(chance.normal(0, 0.12))) + 0.5 + chance.normal(0, 0.04)
    levels = levels * np.exp(chance.normal(0, 0.03, 3)).astype(np.float32)
    blur = float(chance.uniform(0.3, 0.9)) if chance.random() < 0.25 else 0.0
    noisy = chance.random() < 0.3
    if not blur and not noisy:
        return np.asarray(cv2.LUT(picture, _bytes(levels)[:, None]), np.uint8)
    values: NDArray[Any] = np.asarray(cv2.LUT(picture, np.ascontiguousarray(levels[:, None], np.float32)))
    if blur:
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), blur))
    if noisy:
        values = values + chance.normal(0, chance.uniform(0.003, 0.02), values.shape)
    return _bytes(values)


def _bytes(values: NDArray[Any]) -> U8:
    return np.asarray(np.clip(values * 255, 0, 255), np.uint8)


def _cells(mask: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float16]:
    if mask.min() < 0:
        return np.full(shape, -1, np.float16)
    rows, columns = shape
    return np.asarray(mask.reshape(rows, STRIDE, columns, STRIDE).mean((1, 3)), np.float16)


def _on_disk(path: Path, shape: tuple[int, ...], *, fresh: bool) -> "np.memmap[tuple[int, ...], np.dtype[np.float16]]":
    mode = "w+" if fresh or not path.exists() else "r+"
    return np.lib.format.open_memmap(path, mode=mode, dtype=np.float16, shape=shape)


def _write(path: Path, text: str) -> None:
    beside = path.with_suffix(".part")
    beside.write_text(text)
    beside.replace(path)
