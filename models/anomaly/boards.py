"""Printed circuit boards from clean scans alone: a head learns to see made-up faults, and is judged on real defects.

Every place of a board has another pattern, so clean scans get faults that are made up (after CutPaste: Li, Sohn, Yoon,
Pfister 2021, arXiv:2104.04015), and the head learns to see those.

Rules:
- No defective scan is learnt from; both scans of a place are on the same side of every split.
- Two splits are told apart: places not seen of boards that were, and boards not seen at all.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from models.anomaly.faults import with_faults
from models.cells import Frozen, Head
from models.magnetic_tile.fit import cell_loss, moments
from models.magnetic_tile.measure import auroc, interval

DEPTHS, STRIDE, SIDE = (3, 5), 8, 640
"""Finer than for tiles: the smallest defects are ten pixels wide."""
GOOD, REAL, MADE = 0, 1, 2
_FAULTS_SEED, _HEAD_SEED = 1, 0
_GOOD_PER_STEP, _MADE_PER_STEP = 2, 4
_RATE, _DECAY = 4e-3, 1e-2
_SEEN_SHARE = 0.6
"""So much of each board's places, the first ones in order of their names, is learnt from."""


@dataclass(frozen=True)
class Scans:
    """Scans as the frozen part sees them, three to a place: clean, really defective, clean with made-up faults."""

    values: NDArray[np.float16]
    """(n, rows, columns, numbers)."""
    covered: NDArray[np.float32]
    """(n, rows, columns): share of each cell that a made-up fault covers."""
    kind: NDArray[np.intp]
    """(n,) GOOD, REAL or MADE."""
    place: NDArray[Any]
    """(n,) name of the place, beginning with its board."""

    @property
    def board(self) -> NDArray[Any]:
        return np.array([name.split("_")[0] for name in self.place])


def see(folder: Path, every: int = 2) -> Scans:
    """Run the frozen part over every so manieth place of `folder`/{good,defect}."""
    names = sorted(path.name for path in (folder / "good").glob("*.jpg"))[::every]
    frozen, rng = Frozen(DEPTHS, SIDE, SIDE), np.random.default_rng(_FAULTS_SEED)
    cells = SIDE // STRIDE
    values, covered = [], []
    for number, name in enumerate(names):
        good, real = (
            np.asarray(cv2.imread(str(folder / kind / name), cv2.IMREAD_GRAYSCALE), np.uint8)
            for kind in ("good", "defect")
        )
        made, mask = with_faults(good, rng)
        for picture, changed in ((good, mask * 0), (real, mask * 0), (made, mask)):
            values.append(frozen.values(picture))
            covered.append(changed.reshape(cells, STRIDE, cells, STRIDE).mean((1, 3)).astype(np.float32))
        if number % 60 == 0:
            print(f"place {number}/{len(names)}", file=sys.stderr)
    kind = np.tile(np.array([GOOD, REAL, MADE]), len(names))
    return Scans(np.stack(values), np.stack(covered), kind, np.repeat(np.array(names), 3))


def judged(scans: Scans, steps: int) -> dict[str, Any]:
    """Return the AUROC on real defects: of places not seen, and of each board with only the others learnt from."""
    late = np.zeros(len(scans.place), bool)
    for board in np.unique(scans.board):
        places = np.unique(scans.place[scans.board == board])
        late |= np.isin(scans.place, places[int(_SEEN_SHARE * len(places)) :])
    unseen = {
        board: _judge(scans, scans.board != board, scans.board == board, steps) for board in np.unique(scans.board)
    }
    return {
        "places_never_seen": _judge(scans, ~late, late, steps),
        "boards_never_seen": {str(board): figures for board, figures in unseen.items()},
    }


def fit(scans: Scans, chosen: NDArray[np.bool_], steps: int) -> Head:
    """Return a head that learnt made-up faults on the clean scans of the chosen (n,)."""
    torch.manual_seed(_HEAD_SEED)
    rng = np.random.default_rng(_HEAD_SEED)
    good, made = (np.flatnonzero(chosen & (scans.kind == kind)) for kind in (GOOD, MADE))
    head = Head(*moments(scans.values[good[:: max(1, len(good) // 40)]]))
    optimizer = torch.optim.AdamW(head.parameters(), _RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    head.train()
    for _ in range(steps):
        batch = np.concatenate([rng.choice(good, _GOOD_PER_STEP), rng.choice(made, _MADE_PER_STEP)])
        scores = head(torch.from_numpy(scans.values[batch]).float())
        loss = cell_loss(scores, torch.from_numpy(scans.covered[batch]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return head.eval()


def _judge(scans: Scans, chosen: NDArray[np.bool_], asked: NDArray[np.bool_], steps: int) -> dict[str, Any]:
    head = fit(scans, chosen, steps)
    some = np.flatnonzero(asked & (scans.kind != MADE))
    with torch.no_grad():
        score = np.array([float(head(torch.from_numpy(scans.values[i : i + 1]).float()).max()) for i in some])
    bad, place = scans.kind[some] == REAL, scans.place[some]
    return {
        "scans": len(some),
        "auroc": round(auroc(bad, score), 4),
        "interval": interval(lambda drawn: auroc(bad[drawn], score[drawn]), place),
    }
