"""Setting the limit: its false-alarm rate on fresh data, by unit; which score is chosen; and in a bundle."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.bundle import Bundle, load
from edge.engines import Engine, EngineSettings, open_engine
from edge.errors import ModelError
from edge.ood import reference_of, scores
from edge.steps import judge
from edge.values import StationSettings, Window
from edge.work import Work
from export import golden
from export.build import BuildReport, build_bundle
from export.ood import Recognition, fit, fit_apart, limit_at
from export.strange import strangers
from tests.export.extras import CHANNELS, extras_network
from tests.export.networks import spot_network, spot_pictures
from tests.export.test_build import data, recipe

_MIX = np.random.default_rng(3).normal(size=(12, 12))


def known(count: int, seed: int) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).normal(size=(count, 12)) @ _MIX).astype(np.float32)


def test_limit_keeps_its_false_alarm_rate_on_fresh_data() -> None:
    alarms = []
    for seed in range(40):
        found = fit(known(300, seed), known(400, 1000 + seed), None, {}, unit="part", rate=0.05)
        values = np.load(_file(found.content))
        fresh = scores(known(400, 2000 + seed), reference_of(found.spec, values, 12))
        alarms.append(float(np.mean(fresh > found.spec.limit)))
    # The rate is 5 %; of 40 limits the mean is known to about 0.2 points.
    assert 0.042 <= np.mean(alarms) <= 0.055


def test_limit_for_blocks_apart_lets_a_block_pass_that_it_never_saw() -> None:
    """Boards differ in their means; a limit from known boards alone would call most of a new one strange."""
    rng = np.random.default_rng(12)
    means = rng.normal(0, 2, (7, 12))
    boards = [(means[b] + rng.normal(0, 1, (60, 12))).astype(np.float32) for b in range(7)]
    values, blocks = np.concatenate(boards[:6]), np.repeat(np.arange(6), 60)
    far = {"far": values + 40}
    apart = fit_apart(values, np.arange(360), blocks, far, unit="pair", block="board", rate=0.05)
    mixed = fit(values[::2], values[1::2], None, far, unit="pair", rate=0.05)

    def alarms(found: Recognition) -> float:
        reference = reference_of(found.spec, np.load(_file(found.content)), 12)
        return float(np.mean(scores(boards[6], reference) > found.spec.limit))

    assert alarms(apart) <= 0.1 < alarms(mixed)
    assert apart.figures["found"]["far"] == 1.0
    assert set(apart.figures["false_alarms_by_block"]) == {"0", "1", "2", "3", "4", "5"}
    assert "each board scored by what was known of the other 5" in apart.spec.note
    wider = fit_apart(values, np.arange(360), blocks, far, unit="pair", block="board", rate=0.05, margin=2.0)
    assert wider.spec.limit == pytest.approx(2 * apart.spec.limit)
    assert "2 times the one of that rate" in wider.spec.note


def test_unit_with_many_examples_weighs_as_much_as_one_with_few() -> None:
    rng = np.random.default_rng(4)
    small = rng.uniform(0, 1, 200)
    large = np.full(5000, 3.0)  # one unit, photographed again and again
    values, units = np.concatenate([small, large]), np.concatenate([np.arange(200), np.full(5000, 200)])
    limit, count, note = limit_at(values, units, 0.05)
    assert count == 201
    assert limit <= 1.0
    assert note == ""


def test_limit_is_the_conformal_quantile() -> None:
    limit, _, _ = limit_at(np.arange(1.0, 100.0), None, 0.01)  # 99 values: the 99th of 99
    assert limit == 99.0
    limit, _, _ = limit_at(np.arange(1.0, 200.0), None, 0.01)  # ceil(200 × 0.99) = 198
    assert limit == 198.0


def test_too_few_units_take_the_largest_score_and_say_so() -> None:
    limit, count, note = limit_at(np.array([0.5, 3.0, 1.0, 2.0]), np.array([1, 1, 2, 2]), 0.01)
    assert (limit, count) == (3.0, 2)
    assert note == "2 units are too few to show 1%, 99 would do; the limit is the largest score seen"


def test_score_that_finds_most_of_what_is_strange_is_chosen() -> None:
    # Same directions, three times as long: invisible to angles, plain to distances.
    longer = {"longer": 3 * known(60, 5)}
    found = fit(known(300, 1), known(300, 2), None, longer, unit="part")
    assert found.spec.method == "mahalanobis"
    assert found.figures["found"]["longer"] > 0.9
    assert found.figures["found_by"]["nearest"] < 0.2


def test_features_that_never_move_do_no_harm() -> None:
    def still(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([values, np.ones((len(values), 3), np.float32)], 1)

    found = fit(still(known(300, 1)), still(known(300, 2)), None, {"x": still(9 * known(20, 3))}, unit="part")
    assert np.isfinite(found.scores).all()
    assert found.figures["found"]["x"] > 0.9


@pytest.mark.parametrize("shape", [(20, 24, 32, 3), (20, 24, 32, 1)])
def test_strange_pictures_have_the_shape_of_pictures(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    made = strangers(values, seed=1)
    assert {"dark", "bright", "blurred", "black", "noise", "other material", "another thing"} <= set(made)
    for kind, strange in made.items():
        assert strange.shape == shape and strange.dtype == np.uint8, kind
        assert not np.array_equal(strange, values)
    assert all(np.array_equal(made[kind], again) for kind, again in strangers(values, seed=1).items())


def test_strange_sounds_have_the_shape_of_features() -> None:
    values = np.random.default_rng(1).normal(size=(100, 30, 16, 1)).astype(np.float32)
    for strange in strangers(values, seed=1).values():
        assert strange.shape == (48, 30, 16, 1) and strange.dtype == np.float32


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    told = {"bars": np.tile(np.array([0, 255] * 16, np.uint8)[:, None], (8, 24, 1, 3))}
    path = tmp_path_factory.mktemp("ood") / "spot-1.0.0.lsb"
    return build_bundle(recipe(), extras_network(), replace(data(), strange=told), path)


def test_bundle_of_a_network_with_features_knows_what_is_strange(built: BuildReport) -> None:
    manifest = load(built.path).manifest
    assert manifest.out_of_distribution is not None
    assert manifest.out_of_distribution.unit == "part"
    assert manifest.reference["ood"].total == built.figures["heldout"]["count"]
    figures = built.figures["out_of_distribution"]
    assert figures["false_alarms"] <= 0.01
    assert set(figures["false_alarms_by_label"]) == {"good", "bad"}
    assert figures["found"]["noise"] == 1.0
    assert set(figures["told"]) == {"bars"}


def test_examples_that_a_recipe_says_are_known_are_what_is_compared_with(tmp_path: Path) -> None:
    bars = np.tile(np.array([0, 255] * 16, np.uint8)[:, None], (64, 24, 1, 3))
    given = replace(data(), strange={"bars": bars[:8]})
    usual = build_bundle(recipe(), extras_network(), given, tmp_path / "usual.lsb")
    told = build_bundle(recipe(), extras_network(), replace(given, known=bars), tmp_path / "told.lsb")
    assert usual.figures["out_of_distribution"]["told"]["bars"] == 1.0
    assert told.figures["out_of_distribution"]["told"]["bars"] == 0.0


def test_network_without_features_gives_a_bundle_that_does_not_ask(tmp_path: Path) -> None:
    built = build_bundle(recipe(), spot_network(), data(), tmp_path / "spot-1.0.0.lsb")
    assert load(built.path).manifest.out_of_distribution is None
    assert "out_of_distribution" not in built.figures


@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_strange_picture_is_deferred_with_score_and_limit_and_a_known_one_judged(
    built: BuildReport, runtime: str
) -> None:
    bundle = load(built.path)
    engine = open_engine(_ungated(bundle), EngineSettings(runtime=runtime, isolation="inline"))  # type: ignore[arg-type]
    noise = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    strange = _work(noise, engine)
    judgement = judge(strange)
    assert (judgement.verdict, judgement.reason) == ("defer", "out_of_distribution")
    assert judgement.detail is not None
    assert judgement.detail.startswith("unlike all that the model was made for: score ")
    assert strange.metrics["ood"] > engine.known.limit  # type: ignore[union-attr]
    known_ = _work(spot_pictures(1, seed=77)[0][0], engine)
    assert judge(known_).reason != "out_of_distribution"
    assert known_.metrics["ood"] <= engine.known.limit  # type: ignore[union-attr]
    engine.session.close()


def test_reference_of_another_network_is_refused_when_the_bundle_is_opened(built: BuildReport) -> None:
    bundle = load(built.path)
    assert bundle.manifest.out_of_distribution is not None
    files = {**bundle.files, bundle.manifest.out_of_distribution.file: golden.as_npy(np.ones((2, 4), np.float32))}
    with pytest.raises(ModelError, match=rf"expected float32 or float16 of shape \(rows, {CHANNELS + 1}\)"):
        open_engine(replace(bundle, files=files), EngineSettings(isolation="inline"))


def _ungated(bundle: Bundle) -> Bundle:
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"gate": {}}))


def _work(picture: NDArray[np.uint8], engine: Engine) -> Work:
    window = Window("test", "a", "a", "image/png", np.ascontiguousarray(picture[:, :, ::-1]))
    return Work(window, StationSettings("test"), engine)


def _file(content: bytes) -> io.BytesIO:
    return io.BytesIO(content)
