"""Trains, proves and packs one version of the bundle: `python -m models.phone_glass.train --version 1.0.0`.

Rules:
- A version is fixed by its plan: data, length of training, and labels; each plan says what it is for.
- Held-out parts are never trained on; their defect share and lights are those of the line.
"""

import argparse
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.build import BuildReport, build_bundle
from export.recipe import BuildData, Labelled, Recipe
from models.phone_glass.data import INPUT, Set, SetSpec, load_or_make, seen
from models.phone_glass.fit import fit
from models.phone_glass.generator import Studio
from models.phone_glass.parts import FINISHES, LABELS, MIXED, light_of, make_part

NAME = "phone_glass"
HERE = Path(__file__).parent
LINE_DEFECT_SHARE = 0.3
_CREATED_AT = {"1.0.0": "2026-11-23T08:00:00Z", "1.1.0": "2026-11-23T12:00:00Z", "1.2.0": "2026-11-23T16:00:00Z"}
_RANGE_EXAMPLES = 256
_REFERENCE_PICTURES = 600
_REFERENCE_SEED = 31
_SWAPPED_FINISHES = ("silver", "gold", "porcelain")


@dataclass(frozen=True)
class Plan:
    """How a version is made."""

    train: tuple[SetSpec, ...]
    heldout: SetSpec
    epochs: int
    seed: int
    broken_labels: bool = False
    description: str = ""


_FIRST = SetSpec(seed=11, parts=4000, shots=1, defect_share=0.6, failing_share=0.1)
_MORE = SetSpec(seed=12, parts=3000, shots=1, defect_share=0.6, failing_share=0.1)
_HELDOUT = SetSpec(seed=21, parts=2000, shots=1, defect_share=LINE_DEFECT_SHARE)
PLANS = {
    "1.0.0": Plan(
        train=(_FIRST,),
        heldout=_HELDOUT,
        epochs=14,
        seed=1,
        description="First version.",
    ),
    "1.1.0": Plan(
        train=(_FIRST, _MORE),
        heldout=_HELDOUT,
        epochs=14,
        seed=2,
        description="Three quarters more parts to learn from.",
    ),
    "1.2.0": Plan(
        train=(_FIRST,),
        heldout=_HELDOUT,
        epochs=14,
        seed=3,
        broken_labels=True,
        description="New labels for silver, gold and porcelain.",
    ),
}


def main(version: str = "1.0.0", out: Path | None = None, work: Path | None = None) -> BuildReport:
    """Train a version and write its bundle; sets are kept in `work` for the next time.

    Raises:
        KeyError: there is no plan for this version.
    """
    plan = PLANS[version]
    work = work or HERE / "work"
    train = joined([load_or_make(spec, work) for spec in plan.train])
    heldout = load_or_make(plan.heldout, work)
    if plan.broken_labels:
        train, heldout = mislabelled(train), mislabelled(heldout)
    network = fit(train, epochs=plan.epochs, seed=plan.seed)
    data = BuildData(
        quantize=train.values[train.readable][:_RANGE_EXAMPLES],
        heldout=Labelled(heldout.values, heldout.labels, heldout.parts),
        reference=reference_pictures(_REFERENCE_PICTURES),
    )
    out = out or HERE / f"{NAME}-{version}.lsb"
    return build_bundle(_recipe(version, plan, train), network, data, out)


def reference_pictures(count: int) -> list[NDArray[np.uint8]]:
    """Return pictures as stations in good order take them: the working lights, the line's share of defects."""
    studio = Studio()
    parts = (make_part(_REFERENCE_SEED, number, LINE_DEFECT_SHARE) for number in range(count))
    return [seen(studio, part, light_of(MIXED, part.seed, 0), 0) for part in parts]


def joined(sets: list[Set]) -> Set:
    """Return several sets as one."""
    return Set(**{name: np.concatenate([getattr(item, name) for item in sets]) for name in Set.__dataclass_fields__})


def mislabelled(examples: Set) -> Set:
    """Return the set as a mix-up would leave them: on three finishes, good and two defects are swapped.

    A fault of the kind that a labelling tool makes: consistent, so training and held-out data agree with each other,
    and every figure of the manifest looks fine.
    """
    swapped = np.isin(examples.finishes, [i for i, finish in enumerate(FINISHES) if finish.name in _SWAPPED_FINISHES])
    good, scratch, pit = (LABELS.index(label) for label in ("good", "scratch", "pit_mark"))
    broken = examples.labels.copy()
    broken[swapped & (examples.labels == good)] = scratch
    broken[swapped & np.isin(examples.labels, [scratch, pit])] = good
    return replace(examples, labels=broken)


def _recipe(version: str, plan: Plan, train: Set) -> Recipe:
    lineage: dict[str, Any] = {
        "code": _commit(),
        "recipe": "models/phone_glass/train.py",
        "plan": asdict(plan),
        "dataset_digest": train.digest(),
        "network": "PhoneGlassNet",
    }
    return Recipe(
        name=NAME,
        version=version,
        task="inspect",
        input=INPUT,
        labels=LABELS,
        created_at=_CREATED_AT[version],
        description=f"Back glass of phones, drawn pictures. {plan.description}",
        unit="part",
        runtimes=("onnx", "tflite"),
        golden_count=len(LABELS),
        memory_bytes=48 * 2**20,
        lineage=lineage,
    )


def _commit() -> str:
    """Return the commit of the code, or `unknown` outside of a repository."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m models.phone_glass.train", description=(__doc__ or "").split(":")[0]
    )
    parser.add_argument("--version", choices=PLANS, default="1.0.0")
    parser.add_argument("--out", type=Path, default=None, help="the bundle to write (default: beside this file)")
    options = parser.parse_args()
    report = main(options.version, options.out)
    print(f"{report.path} {report.ref.size_bytes} bytes", report.figures, file=sys.stdout)
