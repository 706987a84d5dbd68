"""What was tried for single shorts: `python -m models.pcb.tried --board 00041 --raise 0.6 --data DIR`.

Rules:
- A board is judged by a float network that never saw it, trained as in the recipe (`work/` keeps it).
- Only the evidence for shorts is raised, after training; all else, and the other kinds, stay as they are.
- Nothing here ships: the raise is to be chosen on other boards than those that it is measured on.
"""

import argparse
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from export.roc import auroc
from models.pcb.data import KINDS, Scan, load_scans
from models.pcb.figures import RECALL, interval, named
from models.pcb.fit import as_input
from models.pcb.network import BoardNet
from models.pcb.train import left_out, trained
from models.realdata import add_option, folder_of

RAISES = (0.0, 0.3, 0.6, 0.9, 1.2)
_FLOOR = 6.0
"""As in the network: evidence below −6 is all the same."""
_SHORT = KINDS.index("short")


def raised(network: BoardNet, scans: list[Scan], raises: tuple[float, ...] = RAISES) -> dict[str, Any]:
    """Return for each raise the share of single shorts that stand out, and what becomes of whole scans.

    Args:
        network: never saw the scans' board.
        scans: of one board, clean and defective.
        raises: added to the evidence for shorts, in log-odds.
    """
    with torch.no_grad():
        cells = [network.cells(as_input(scan.picture[None]))[0] for scan in scans]
    return {f"{by:+.1f}": _figures(network, scans, [_with(found, by) for found in cells]) for by in raises}


def _with(cells: Tensor, by: float) -> Tensor:
    changed = cells.clone()
    changed[_SHORT] += by
    return changed


def _figures(network: BoardNet, scans: list[Scan], cells: list[Tensor]) -> dict[str, Any]:
    bad = np.array([scan.defective for scan in scans])
    score = np.array([_score(network, found) for found in cells])
    limit = np.quantile(score[bad], 1 - RECALL, method="lower")
    shorts = [
        named(found.numpy(), box) > 0
        for scan, found in zip(scans, cells, strict=True)
        for kind, box in zip(scan.kinds, scan.boxes, strict=True)
        if kind == _SHORT + 1
    ]
    return {
        "shorts": len(shorts),
        "found": round(float(np.mean(shorts)), 4),
        "found_interval": interval(int(np.sum(shorts)), len(shorts)),
        "auroc": round(auroc(bad, score), 5),
        "false_rejects_at_99_recall": round(float(np.mean(score[~bad] >= limit)), 4),
    }


def _score(network: BoardNet, cells: Tensor) -> float:
    """Return a scan's log-odds of any kind against good, as the network's own end makes it of its cells."""
    with torch.no_grad():
        places = network.spread(functional.relu(cells[None] + _FLOOR))
        logits = network.answer(functional.max_pool2d(places, places.shape[2:])).flatten()
    return float(logits[1:].logsumexp(0) - logits[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.pcb.tried", description="Raise the evidence for shorts.")
    add_option(parser, "pcb")
    parser.add_argument("--board", required=True)
    parser.add_argument("--raise", dest="raises", type=float, action="append", help="repeatable (default: several)")
    options = parser.parse_args()
    everything = load_scans(folder_of("pcb", options.data))
    torch.set_num_threads(1)
    judge = trained([scan for scan in everything if left_out(scan.board) != left_out(options.board)])
    shown = [scan for scan in everything if scan.board == options.board]
    print(json.dumps({options.board: raised(judge, shown, tuple(options.raises or RAISES))}))
