"""Features from a map of a finished network: what it gave before stays the same in both formats."""

import numpy as np
import pytest

from edge.errors import ModelError
from export import golden
from export.features import at, maps, means, with_features, with_heatmap
from export.quantize import Quantized, quantize
from export.tflite import write_tflite
from tests.export.networks import sound_network, spot_network, spot_pictures


def finished() -> tuple[Quantized, np.ndarray]:
    pictures = spot_pictures(24, 3)[0]
    return quantize(spot_network(), pictures), pictures


def test_logits_stay_as_they_were_and_features_are_the_mean_of_the_map() -> None:
    before, pictures = finished()
    name, shape = maps(before.shipped)[0]
    after = with_features(before.shipped, before.spec, name, pictures)
    tflite = write_tflite(after)
    old = golden.outputs(before.shipped, before.spec, pictures)
    exact = means(before.shipped, name, pictures)
    for content, spec in ((after.shipped, after.spec), tflite):
        answers = golden.split(golden.answers(content, spec, pictures), spec)
        assert np.array_equal(answers.logits, old)
        assert answers.features is not None and answers.features.shape == (len(pictures), shape[1])
        assert spec.features is not None and spec.features.tolerance is not None
        assert np.abs(answers.features - exact).max() <= spec.features.tolerance


def test_network_of_sounds_gains_features_too() -> None:
    values = np.random.default_rng(2).normal(0, 1, (16, 20, 10, 1)).astype(np.float32)
    before = quantize(sound_network(20, 10), values)
    after = with_features(before.shipped, before.spec, maps(before.shipped)[-1][0], values)
    old = golden.outputs(before.shipped, before.spec, values)
    assert np.array_equal(golden.outputs(after.shipped, after.spec, values), old)


def test_network_that_gives_features_already_is_refused() -> None:
    before, pictures = finished()
    name = maps(before.shipped)[0][0]
    after = with_features(before.shipped, before.spec, name, pictures)
    with pytest.raises(ModelError, match="already"):
        with_features(after.shipped, after.spec, name, pictures)


def test_heat_map_is_a_weighing_of_the_map_in_both_formats_and_all_else_stays() -> None:
    plain, pictures = finished()
    before = with_features(plain.shipped, plain.spec, maps(plain.shipped)[0][0], pictures)
    name, shape = maps(before.shipped)[0]
    weights = np.linspace(-1.0, 2.0, shape[1]).astype(np.float32)
    after = with_heatmap(before.shipped, before.spec, name, weights, -0.3, pictures)
    wanted = np.maximum(np.einsum("nchw,c->nhw", at(before.shipped, name, pictures), weights) - 0.3, 0)
    assert wanted.max() > 0 and (wanted == 0).any()
    old = golden.split(golden.answers(before.shipped, before.spec, pictures), before.spec)
    for content, spec in ((after.shipped, after.spec), write_tflite(after)):
        answers = golden.split(golden.answers(content, spec, pictures), spec)
        assert np.array_equal(answers.logits, old.logits)
        assert np.array_equal(np.asarray(answers.features), np.asarray(old.features))
        assert answers.heatmap is not None and answers.heatmap.shape == wanted.shape
        assert np.abs(answers.heatmap - wanted).max() <= 0.03 * wanted.max()
    with pytest.raises(ModelError, match="heat map already"):
        with_heatmap(after.shipped, after.spec, name, weights, 0.0, pictures)
