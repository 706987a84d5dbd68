"""Counts how networks did on boards that they never saw: by scan, by kind, by box, with intervals. Pure but for `save`.

Rules:
- A scan's defect score is the log-odds of any kind against good.
- A scan holds several kinds: the one that is named is right if the scan has it. By box, each kind counts alone.
- The threshold for 99 % recall is set on the very scans that are counted: it compares boards, it promises nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from export.roc import auroc
from models.pcb.data import KINDS, LABELS, Scan, pair_of
from models.pcb.network import STRIDE, BoardNet

F64 = NDArray[np.float64]
RECALL = 0.99
_BOOTSTRAP = 1000


@dataclass(frozen=True)
class Scored:
    """One board, scored by a network that never saw it."""

    board: str
    scans: list[Scan]
    logits: NDArray[np.float32]
    """(n, 7) of the int8 network."""
    boxes: NDArray[np.intp]
    """(defects, 2): the true kind of each box, and what was named in it, 0 for nothing; of the float network."""

    def labels(self) -> NDArray[np.intp]:
        """Return one true label per scan: of its kinds the one that scored highest."""
        return np.array([_label(scan, row) for scan, row in zip(self.scans, self.logits, strict=True)], np.intp)

    def figures(self) -> dict[str, Any]:
        """Return the figures of this board."""
        return _figures([self])


def boxes(network: BoardNet, scans: list[Scan]) -> NDArray[np.intp]:
    """Return (defects, 2) for all boxes of some scans: true kind, named kind or 0."""
    import torch

    from models.pcb.fit import as_input

    found: list[tuple[int, int]] = []
    for scan in scans:
        if not scan.defective:
            continue
        with torch.no_grad():
            cells = network.cells(as_input(scan.picture[None]))[0].numpy()
        found.extend((int(kind), named(cells, box)) for kind, box in zip(scan.kinds, scan.boxes, strict=True))
    return np.array(found, np.intp).reshape(-1, 2)


def named(cells: NDArray[np.float32], box: NDArray[np.float32]) -> int:
    """Return the likeliest kind of the worst cell in a box, or 0 if good is likelier."""
    left, top, right, bottom = (int(value) // STRIDE for value in box)
    inside = cells[:, top : bottom + 1, left : right + 1].max((1, 2))
    return int(inside.argmax()) + 1 if inside.max() > 0 else 0


def table(parts: list[Scored]) -> dict[str, Any]:
    """Return the figures of each board, and of all together under `all`."""
    return {**{part.board: part.figures() for part in parts}, "all": _figures(parts)}


def save(parts: list[Scored], folder: Path) -> None:
    """Write the cross-validated scores to `scores.npz` and the figures to `figures.json`."""
    folder.mkdir(exist_ok=True)
    scans = [scan for part in parts for scan in part.scans]
    np.savez_compressed(
        folder / "scores.npz",
        logits=np.concatenate([part.logits for part in parts]),
        labels=np.concatenate([part.labels() for part in parts]),
        defective=np.array([scan.defective for scan in scans]),
        unit=np.array([pair_of(scan.name) for scan in scans]),
        board=np.array([scan.board for scan in scans]),
        names=np.array(LABELS),
    )
    (folder / "figures.json").write_text(json.dumps(table(parts), indent=1) + "\n")


def _label(scan: Scan, logits: NDArray[np.float32]) -> int:
    return int(max(scan.kinds, key=lambda kind: logits[kind])) if scan.defective else 0


def _figures(parts: list[Scored]) -> dict[str, Any]:
    scans = [scan for part in parts for scan in part.scans]
    logits = np.concatenate([part.logits for part in parts]).astype(np.float64)
    score = np.logaddexp.reduce(logits[:, 1:], axis=1) - logits[:, 0]
    defective = np.array([scan.defective for scan in scans])
    named = logits[:, 1:].argmax(1) + 1
    right = sum(int(kind) in scan.kinds for kind, scan in zip(named, scans, strict=True) if scan.defective)
    rejects = int(np.sum(score[~defective] >= np.quantile(score[defective], 1 - RECALL, method="lower")))
    clean, bad = int(np.sum(~defective)), int(np.sum(defective))
    return {
        "pairs": bad,
        "auroc": round(auroc(defective, score), 5),
        "auroc_interval": _auroc_interval(score, defective, np.array([pair_of(scan.name) for scan in scans])),
        "false_rejects_at_99_recall": round(rejects / clean, 4),
        "false_rejects_interval": interval(rejects, clean),
        "named_kind_present": round(right / bad, 4),
        "named_kind_interval": interval(right, bad),
        "boxes": _by_kind(np.concatenate([part.boxes for part in parts])),
    }


def _by_kind(found: NDArray[np.intp]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for index, kind in enumerate(KINDS, 1):
        named = found[found[:, 0] == index, 1]
        if len(named):
            seen, right = int(np.sum(named > 0)), int(np.sum(named == index))
            rows[kind] = {
                "count": len(named),
                "found": round(seen / len(named), 4),
                "found_interval": interval(seen, len(named)),
                "named_right": round(right / len(named), 4),
            }
    return rows


def interval(count: int, total: int) -> list[float]:
    """Return the 95 % interval of Clopper and Pearson (1934) for a share."""
    low = beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return [round(float(low), 4), round(float(high), 4)]


def _auroc_interval(score: F64, defective: NDArray[np.bool_], pairs: NDArray[np.str_]) -> list[float]:
    """95 %, by bootstrap over pairs."""
    rng = np.random.default_rng(0)
    numbers = np.unique(pairs, return_inverse=True)[1]
    members = [np.flatnonzero(numbers == number) for number in range(numbers.max() + 1)]
    values = []
    for _ in range(_BOOTSTRAP):
        drawn = np.concatenate([members[index] for index in rng.integers(len(members), size=len(members))])
        values.append(auroc(defective[drawn], score[drawn]))
    low, high = np.quantile(values, [0.025, 0.975])
    return [round(float(low), 5), round(float(high), 5)]
