"""Each reference bundle carries its audit against the limits of its folder, and what failed stands as failed."""

from pathlib import Path

import pytest

from edge.bundle import Bundle, load
from export import limits
from export.page import render
from export.recorded import held, of_manifest
from models.audits import HERE, LIMITS, audited, names
from tests.data import real_data

BUNDLES = [path for name in names() for path in sorted((HERE / name).glob("*.lsb"))]
FAILED = {
    "anomaly-1.1.0": 1,  # uneven grinding is hardly unlike good tiles
    "ball_screw-1.1.0": 4,  # by picture the first pits are missed, and one position proves little
    "commands-1.0.0": 1,  # one speaker, a single clip, is not understood
    "magnetic_tile-1.1.0": 2,  # by picture; and too few tiles to decide anything alone
    "pcb-1.0.0": 2,  # board 12300 by a hair; shorts by themselves
    "phone_glass-1.0.0": 0,
    "phone_glass-1.1.0": 0,
    "phone_glass-1.2.0": 1,  # trained on a mix-up of labels
    "sentences-1.0.0": 0,
    "sentences_small-1.0.0": 4,  # hears half of the words at best, and accepts nothing
    "spoken_digits-1.2.0": 3,  # six, nicolas, other words
}


def failed(bundle: Bundle) -> list[str]:
    return [row["limit"] for row in bundle.manifest.audit["limits"] if not row["passed"]]


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.stem)
def test_committed_bundle_carries_an_audit_that_names_what_failed(path: Path) -> None:
    bundle = load(path)
    audit = bundle.manifest.audit
    assert len(failed(bundle)) == FAILED[path.stem], failed(bundle)
    assert audit["passed"] is (not failed(bundle))
    assert audit["not_tested"]
    page = render(bundle)
    assert "The audit:" in page
    assert all(row["why"] for row in audit["limits"] if not row["passed"])


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.stem)
def test_audit_of_recorded_figures_is_had_again_from_the_bundle(path: Path) -> None:
    bundle = load(path)
    agreed = limits.read(path.parent / LIMITS)
    again = [held(figure, of_manifest(bundle.manifest)) for figure in agreed.figure]
    assert bundle.manifest.audit["limits"][-len(again) :] == again


@pytest.mark.real_data
@pytest.mark.slow
def test_recordings_kept_from_training_are_judged_again_alike() -> None:
    (path,) = (HERE / "spoken_digits").glob("*.lsb")
    bundle = load(path)
    again = audited("spoken_digits", bundle, real_data("spoken-digits").parent)
    assert again.manifest.audit == bundle.manifest.audit
