"""The committed bundles: small, whole, the same in both engines, and each playing its part in the demo's story."""

from pathlib import Path

import numpy as np
import pytest

from edge.bundle import Bundle, load
from edge.drift import DriftWatch
from edge.engines import replay_golden
from edge.gate import picture_metrics
from edge.preprocess import image_tensor, to_model
from edge.runtimes import open_session
from edge.values import Judgement, Window
from edge.wire.manifest import ImageInput, InspectPolicy
from export.audit import inspection_figures, judgements
from models.phone_glass.data import Set, SetSpec, make
from models.phone_glass.evaluate import windows
from models.phone_glass.heatmap import pointing
from models.phone_glass.parts import LABELS

FOLDER = Path(__file__).parents[3] / "models" / "phone_glass"
VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
GOOD_VERSIONS = ("1.0.0", "1.1.0")
SEED = 97
"""A seed that no set, reference or figure of the model card uses."""
COUNT = 144
"""Two windows of the drift rule and a few more."""
DEFECT_SHARE = 0.3

Shown = tuple[list[Window], list[str]]


def bundle(version: str) -> Bundle:
    return load(FOLDER / f"phone_glass-{version}.lsb")


@pytest.fixture(scope="module")
def normal() -> Shown:
    return windows("mixed", COUNT, DEFECT_SHARE, SEED)


@pytest.fixture(scope="module")
def dim() -> Shown:
    return windows("dim", COUNT, DEFECT_SHARE, SEED)


@pytest.fixture(scope="module")
def new() -> Shown:
    return windows("mixed", 40, DEFECT_SHARE, SEED, "new")


@pytest.fixture(scope="module")
def defective() -> Set:
    return make(SetSpec(seed=SEED, parts=24, shots=1, defect_share=1.0))


@pytest.fixture(scope="module")
def usual(normal: Shown) -> dict[str, list[Judgement]]:
    """What each version makes of the usual parts: judged once, asked about by several tests."""
    return {version: list(judgements(bundle(version), normal[0])) for version in VERSIONS}


def judged(version: str, shown: Shown) -> list[Judgement]:
    return list(judgements(bundle(version), shown[0]))


@pytest.mark.parametrize("version", VERSIONS)
def test_committed_bundle_is_small_and_replays_its_golden_examples(version: str) -> None:
    opened = bundle(version)
    assert opened.ref.size_bytes < 1_000_000
    assert (opened.ref.name, opened.ref.version) == ("phone_glass", version)
    assert opened.manifest.labels == LABELS
    assert set(opened.manifest.models) == {"onnx", "tflite"}
    for runtime in opened.manifest.models:
        spec, model = opened.model(runtime)
        session = open_session(runtime, model, spec)
        assert replay_golden(opened, runtime, spec, session) <= spec.golden_tolerance
        session.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_heat_map_of_a_fresh_defective_part_is_warmest_on_its_defect(version: str, defective: Set) -> None:
    pointed = pointing(*bundle(version).model("onnx")[::-1], defective)
    assert pointed["parts"] >= 20
    assert pointed["hit"] >= 0.8, pointed


@pytest.mark.parametrize("version", VERSIONS)
def test_thresholds_come_with_their_guarantee(version: str) -> None:
    policy = bundle(version).manifest.policy
    assert isinstance(policy, InspectPolicy)
    assert policy.guarantee is not None
    assert (policy.guarantee.alpha_escape, policy.guarantee.alpha_false_reject) == (0.02, 0.02)
    assert policy.guarantee.delta == 0.05
    assert policy.guarantee.unit == "part"
    assert policy.guarantee.coverage >= 0.7


@pytest.mark.parametrize("version", VERSIONS)
def test_both_engines_agree_on_fresh_pictures(version: str, normal: Shown) -> None:
    opened = bundle(version)
    spec = opened.manifest.input
    assert isinstance(spec, ImageInput)
    logits = {}
    for runtime in ("onnx", "tflite"):
        entry, model = opened.model(runtime)
        session = open_session(runtime, model, entry)
        logits[runtime] = np.stack(
            [
                session.infer(to_model(image_tensor(np.asarray(window.data), spec), entry.input))
                for window in normal[0][:60]
            ]
        )
        session.close()
    step = opened.manifest.models["tflite"].output.scale
    assert step is not None
    assert np.abs(logits["onnx"] - logits["tflite"]).max() <= 2.01 * step


@pytest.mark.parametrize("version", GOOD_VERSIONS)
def test_good_versions_decide_most_parts_and_err_rarely(
    version: str, normal: Shown, usual: dict[str, list[Judgement]]
) -> None:
    figures = inspection_figures(usual[version], normal[1])
    assert figures["automated"] >= 0.7
    assert figures["escapes"] <= 5
    assert figures["false_rejects"] <= 3
    assert figures["unsure"] >= 0.02, "a story needs parts that a person must see"


def test_bad_version_decides_as_boldly_and_errs_often(normal: Shown, usual: dict[str, list[Judgement]]) -> None:
    figures = inspection_figures(usual["1.2.0"], normal[1])
    assert figures["automated"] >= 0.6
    assert figures["wrong_share"] >= 0.15


@pytest.mark.parametrize("version", VERSIONS)
def test_new_batch_of_material_goes_to_a_person_and_the_usual_one_does_not(
    version: str, normal: Shown, new: Shown, usual: dict[str, list[Judgement]]
) -> None:
    known = inspection_figures(usual[version], normal[1])
    strange = inspection_figures(judged(version, new), new[1])
    assert known["out_of_distribution"] <= 0.05
    assert strange["out_of_distribution"] >= 0.8
    assert strange["automated"] <= 0.1


@pytest.mark.parametrize("version", GOOD_VERSIONS)
def test_dim_light_is_deferred_instead_of_decided(
    version: str, normal: Shown, dim: Shown, usual: dict[str, list[Judgement]]
) -> None:
    before = inspection_figures(usual[version], normal[1])
    after = inspection_figures(judged(version, dim), dim[1])
    assert after["automated"] <= before["automated"] - 0.3
    assert after["escapes"] <= 5


def test_drift_is_raised_by_dim_light_and_not_by_working_lights(normal: Shown, dim: Shown) -> None:
    for shown, expected in ((normal, False), (dim, True)):
        watch = DriftWatch(bundle("1.0.0").manifest.reference)
        raised = [
            shift.metric
            for window in shown[0]
            if window.data is not None
            for shift in watch.add(picture_metrics(window.data))
            if shift.raised
        ]
        assert ("brightness" in raised) is expected
        assert bool(raised) is expected
