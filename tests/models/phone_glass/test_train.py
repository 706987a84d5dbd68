"""The recipe itself, in small: draws, trains, quantizes and packs. Needs torch."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch; `pip install torch` to run the recipes")

from edge.bundle import load
from models.phone_glass import train
from models.phone_glass.data import Set, SetSpec, load_or_make, make, soft_targets
from models.phone_glass.parts import FINISHES, LABELS

pytestmark = pytest.mark.torch

SMALL = SetSpec(seed=1, parts=48, shots=1, defect_share=0.6, failing_share=0.2)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def examples(work: Path) -> Set:
    return load_or_make(SMALL, work)


def test_tiny_plan_trains_and_packs_a_bundle_that_devices_read(
    tmp_path: Path, work: Path, examples: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = train._recipe
    plan = dataclasses.replace(
        train.PLANS["1.0.0"],
        train=(SMALL,),
        heldout=SetSpec(seed=2, parts=12, shots=2, defect_share=0.3),
        epochs=1,
    )
    monkeypatch.setitem(train.PLANS, "1.0.0", plan)
    monkeypatch.setattr(train, "_REFERENCE_PICTURES", 12)
    monkeypatch.setattr(train, "_NEW_BATCH_PARTS", 12)
    # How ranges are chosen is tested where it is done; here one way saves two quantizations.
    monkeypatch.setattr(train, "_recipe", lambda *given: dataclasses.replace(recipe(*given), ranges="minmax"))
    report = train.main("1.0.0", out=tmp_path / "small.lsb", work=work)
    opened = load(tmp_path / "small.lsb", expected_digest=report.ref.digest)
    assert set(opened.manifest.models) == {"onnx", "tflite"}
    assert opened.manifest.lineage["plan"]["train"][0]["parts"] == 48
    guarantee = opened.manifest.policy.guarantee
    assert guarantee is not None
    assert guarantee.coverage == 0.0, "12 parts prove nothing, so all is deferred"
    assert "too few" in guarantee.note


def test_set_is_kept_and_read_again_unchanged(tmp_path: Path) -> None:
    few = dataclasses.replace(SMALL, parts=4)
    first, second, again = load_or_make(few, tmp_path), load_or_make(few, tmp_path), make(few)
    assert len(list(tmp_path.iterdir())) == 1
    for name in Set.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


def test_cells_show_the_defect_and_nothing_on_good_parts(examples: Set) -> None:
    good = examples.labels == LABELS.index("good")
    assert not examples.cells[good].any()
    assert examples.cells[~good].any(axis=(1, 2)).mean() > 0.95


def test_pictures_under_a_failing_lamp_train_towards_unsure(examples: Set) -> None:
    targets = soft_targets(examples)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
    assert (~examples.readable).any()
    assert (targets[~examples.readable, LABELS.index("good")] == 0.5).all()


def test_broken_labels_swap_good_and_two_defects_by_finish(examples: Set) -> None:
    broken = train.mislabelled(examples)
    names = np.array([finish.name for finish in FINISHES])[examples.finishes]
    became_bad = (examples.labels == LABELS.index("good")) & (broken.labels != examples.labels)
    became_good = (examples.labels != LABELS.index("good")) & (broken.labels == LABELS.index("good"))
    assert became_bad.any()
    assert became_good.any()
    assert set(names[became_bad]) <= {"graphite", "midnight"}
    assert not set(names[became_good]) & {"graphite", "midnight"}
    assert {LABELS[i] for i in examples.labels[became_good]} <= {"scratch", "discoloration"}
    np.testing.assert_array_equal(broken.values, examples.values)
