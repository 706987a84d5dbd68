"""How much of a new version a device downloads that has another one: deltas between real bundles, made and applied.

Rules:
- Committed bundles of one model, version to version; and, where torch is installed, a network that is really trained,
  then tuned a little, then quantized by the same steps as a bundle's: what most new versions are.
- The whole is what a device would download else; every delta is applied, and counts only if it gives the very bytes.
- zstd with the old content as dictionary is shown beside where the package `zstandard` is installed.
"""

import bz2
import io
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.tables import print_table
from cloud.deltas import make
from edge.wire.delta import apply, pieces_of

if TYPE_CHECKING:
    import torch

MODELS = Path(__file__).parents[1] / "models"
COMMITTED = (
    ("phone_glass", "phone_glass-1.0.0", "phone_glass-1.1.0", "trained anew on more parts"),
    ("phone_glass", "phone_glass-1.1.0", "phone_glass-1.2.0", "trained anew on other labels"),
    ("sentences", "sentences-1.0.0", "sentences_small-1.0.0", "another recogniser, the same examples"),
)
DEPTH, SIDE, PARTS, BATCH, EXAMPLES, SEED = 8, 64, 64, 16, 32, 3
FIRST_STEPS, LIGHT_STEPS = 40, 30
_FIRST_RATE, _LIGHT_RATE = 5e-4, 5e-5
_LABELS = 6


@dataclass(frozen=True)
class Result:
    """One pair of versions."""

    pair: str
    change: str
    whole_bytes: int
    delta_bytes: int | None
    """None where it is not worth it."""
    share: float | None
    zstd_share: float | None
    make_s: float
    apply_ms: float | None


def main(*, as_json: bool = False) -> list[Result]:
    """Measure and print."""
    results = [measured(*pair) for pair in pairs()]
    print_table("delta", [asdict(result) for result in results], as_json=as_json)
    return results


def pairs() -> Iterator[tuple[str, str, bytes, bytes]]:
    """Give name, change, old and new archive of every pair."""
    for folder, old, new, change in COMMITTED:
        archives = [(MODELS / folder / f"{name}.lsb").read_bytes() for name in (old, new)]
        yield f"{old} → {new}", change, archives[0], archives[1]
    if find_spec("torch") is not None:
        yield from _tuned()


def measured(pair: str, change: str, old: bytes, new: bytes) -> Result:
    """Return what a delta between two archives saves and costs."""
    began_s = time.perf_counter()
    delta = make(old, new)
    make_s = time.perf_counter() - began_s
    apply_ms = None
    if delta:
        began_s, out = time.perf_counter(), io.BytesIO()
        apply(old, delta, out.write, digest=sha256(new).hexdigest(), size_bytes=len(new))
        apply_ms = 1000 * (time.perf_counter() - began_s)
        assert out.getvalue() == new
    return Result(
        pair=pair,
        change=change,
        whole_bytes=len(new),
        delta_bytes=len(delta) or None,
        share=round(len(delta) / len(new), 3) if delta else None,
        zstd_share=_by_zstd(old, new),
        make_s=round(make_s, 2),
        apply_ms=None if apply_ms is None else round(apply_ms, 1),
    )


# ── private, in call order ──────────────────────────────────────────────────────────────────────────────────────


def _tuned() -> Iterator[tuple[str, str, bytes, bytes]]:
    """Give networks that were trained a little further, as archives with the network alone."""
    import torch
    from torch import nn

    from export.training.lite0 import Lite0, channels_after

    torch.manual_seed(SEED)
    pictures, labels = _pictures()
    body, head = Lite0(DEPTH), nn.Linear(channels_after(DEPTH), _LABELS)
    net = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    net.eval()
    _train(net, [*net.parameters()], pictures, labels, FIRST_STEPS, _FIRST_RATE)
    first = _archive(net, pictures)
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    _train(net, [*head.parameters()], pictures, labels, LIGHT_STEPS, _FIRST_RATE)
    yield "EfficientNet-Lite0, int8", f"head tuned for {LIGHT_STEPS} steps", first, _archive(net, pictures)
    net.load_state_dict(kept)
    _train(net, [*net.parameters()], pictures, labels, LIGHT_STEPS, _LIGHT_RATE)
    yield "EfficientNet-Lite0, int8", f"all tuned for {LIGHT_STEPS} steps", first, _archive(net, pictures)


def _pictures() -> "tuple[torch.Tensor, torch.Tensor]":
    import tempfile

    import torch

    from models.phone_glass.data import SetSpec, load_or_make

    with tempfile.TemporaryDirectory() as folder:
        drawn = load_or_make(SetSpec(seed=91, parts=PARTS, shots=1, defect_share=0.6), Path(folder))
    values = torch.from_numpy(drawn.values[:, :SIDE, :SIDE].copy()).permute(0, 3, 1, 2)
    return (values.float() - 128) / 128, torch.tensor(drawn.labels, dtype=torch.long)


def _train(
    net: "torch.nn.Module",
    parameters: "list[torch.nn.Parameter]",
    pictures: "torch.Tensor",
    labels: "torch.Tensor",
    steps: int,
    rate: float,
) -> None:
    import torch

    chosen = torch.Generator().manual_seed(SEED)
    optimiser = torch.optim.SGD(parameters, lr=rate, momentum=0.9)
    for _ in range(steps):
        some = torch.randint(0, len(labels), (BATCH,), generator=chosen)
        loss = torch.nn.functional.cross_entropy(net(pictures[some]), labels[some])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()


def _archive(net: "torch.nn.Module", pictures: "torch.Tensor") -> bytes:
    import numpy as np

    from export.onnx_export import float_onnx
    from export.quantize import quantize

    values = (pictures[:EXAMPLES].permute(0, 2, 3, 1).numpy() * 128 + 128).astype(np.uint8)
    shipped = quantize(float_onnx(net, (3, SIDE, SIDE)), values).shipped
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        info = zipfile.ZipInfo("model.onnx")
        smaller = len(bz2.compress(shipped)) <= 0.9 * len(shipped)
        target.writestr(info, shipped, zipfile.ZIP_BZIP2 if smaller else zipfile.ZIP_STORED)
    return stream.getvalue()


def _by_zstd(old: bytes, new: bytes) -> float | None:
    if find_spec("zstandard") is None:
        return None
    import importlib

    zstd: Any = importlib.import_module("zstandard")
    before, after = (b"".join(piece.content for piece in pieces_of(archive)) for archive in (old, new))
    bits = max(17, (len(before) + len(after)).bit_length())
    level = zstd.ZstdCompressionParameters.from_level(19, window_log=bits, enable_ldm=True)
    words = zstd.ZstdCompressionDict(before, dict_type=zstd.DICT_TYPE_RAWCONTENT)
    made = zstd.ZstdCompressor(dict_data=words, compression_params=level).compress(after)
    return round(len(made) / len(new), 3)
