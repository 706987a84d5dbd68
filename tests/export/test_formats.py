"""Which engine and precision ship: the rule, on measurements that are made up, and the float file that may ship."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.bundle import load
from edge.engines import EngineSettings, open_engine
from edge.errors import ConfigError
from edge.preprocess import to_model
from export import formats, golden, speed
from export.build import build_bundle
from export.floating import float_file
from export.formats import Choice, asked, choose, of_plain
from export.onnx_export import stripped
from export.quantize import quantize, to_network
from export.run import OnnxRunner
from export.speed import FLOAT, Speed
from tests.export.networks import sound_network, spot_network, spot_pictures
from tests.export.test_build import data, recipe

MIB = 2**20


def speeds(tflite: float, floating: float, *, size: int = 100_000, memory: int | None = MIB) -> dict[str, Speed]:
    """Return speeds of a network that takes 2 ms in onnxruntime as int8, and so many times that in other forms."""
    return {
        "onnx": Speed("onnx int8", 30_000, 2.0, 2.5, MIB, 1.0),
        "tflite": Speed("tflite int8", 30_000, 2.0 * tflite, 3.0, MIB, tflite),
        FLOAT: Speed("onnx float32", size, 2.0 * floating, 3.0, memory, floating),
    }


@pytest.mark.parametrize(
    ("tflite", "floating", "expected"),
    [
        (1.0, 1.0, ("onnx", "int8")),
        (0.7, 0.7, ("onnx", "int8")),  # not by the margin
        (0.6, 1.0, ("tflite", "int8")),
        (1.0, 0.6, ("onnx", "float32")),
        (0.6, 0.5, ("tflite", "int8")),  # float is not much faster than what ships instead
        (0.6, 0.3, ("onnx", "float32")),
    ],
)
def test_what_is_faster_by_a_wide_margin_ships(tflite: float, floating: float, expected: tuple[str, str]) -> None:
    chosen = choose(speeds(tflite, floating), 1)
    assert (chosen.prefer, chosen.precision) == expected
    assert "measured here with 1 thread: onnx int8 2.000 ms" in chosen.why


@pytest.mark.parametrize(
    ("dear", "says"),
    [
        ({"size": 600_000}, "its file has 600,000 bytes"),
        ({"memory": 20 * MIB}, "it takes 19 MiB more memory"),
        ({"memory": None}, "its memory could not be measured"),
    ],
)
def test_float_that_costs_too_much_does_not_ship_and_the_report_says_why(dear: dict[str, int], says: str) -> None:
    chosen = choose(speeds(1.0, 0.4, **dear), 1)
    assert (chosen.prefer, chosen.precision) == ("onnx", "int8")
    assert f"float would be 2.5 times as fast, but {says}" in chosen.why


def test_network_that_tflite_cannot_hold_is_chosen_without_it() -> None:
    known = {name: speed for name, speed in speeds(0.1, 1.0).items() if name != "tflite"}
    assert choose(known, 2).prefer == "onnx"


def test_what_was_asked_is_taken_and_leaves_the_rest_to_the_measurement() -> None:
    assert asked("tflite", None) == Choice("tflite", "int8", "as asked")
    assert asked(None, "float32") == Choice("onnx", "float32", "as asked")
    assert asked("onnx", None) is None and asked(None, "int8") is None and asked(None, None) is None
    assert choose(speeds(0.1, 1.0), 1, prefer="onnx").prefer == "onnx"
    assert choose(speeds(0.6, 0.1), 1, precision="int8").precision == "int8"
    with pytest.raises(ConfigError, match="onnxruntime alone"):
        asked("tflite", "float32")


def test_kept_choice_comes_back_with_its_origin_and_a_damaged_one_does_not() -> None:
    chosen = Choice("tflite", "int8", "faster")
    back = of_plain(chosen.plain(), "as run 12 chose")
    assert back == Choice("tflite", "int8", "faster (as run 12 chose)")
    assert of_plain(back.plain(), "as run 12 chose") == back
    assert of_plain({}, "x") is None and of_plain({"prefer": "onnx", "precision": "int4"}, "x") is None
    assert chosen.again() == "--prefer tflite --precision int8"


@pytest.mark.parametrize("network", ["pictures", "sound"])
def test_float_file_takes_what_the_int8_one_takes_and_answers_as_the_network_does(network: str) -> None:
    values: NDArray[np.generic]
    if network == "pictures":
        model, (values, _) = spot_network(), spot_pictures(12, seed=3)
    else:
        model, values = sound_network(20, 10), np.random.default_rng(1).normal(0, 1, (12, 20, 10, 1)).astype("float32")
    content, spec = float_file(model, values)
    assert spec.input == quantize(model, values).spec.input, "a device prepares its input the same way"
    exact = OnnxRunner(stripped(model).SerializeToString()).logits(to_network(values)[:, None])
    found = golden.outputs(content, spec, values)
    assert np.abs(found - exact).max() <= 1e-5 * np.abs(exact).max()
    assert 0 < spec.golden_tolerance < 0.01 * np.abs(exact).max() + 1e-3


def test_float_network_becomes_a_bundle_that_a_device_opens(tmp_path: Path) -> None:
    report = build_bundle(replace(recipe(), precision="float32"), spot_network(), data(), tmp_path / "spot.lsb")
    bundle = load(report.path)
    assert list(bundle.manifest.models) == ["onnx"]
    assert bundle.manifest.models["onnx"].precision == "float32"
    assert report.figures["quantization"] == {"precision": "float32"}
    engine = open_engine(bundle, EngineSettings(isolation="inline"))
    spec = bundle.model("onnx")[0]
    picture = spot_pictures(1, seed=9)[0]
    assert len(engine.session.infer(to_model(picture, spec.input))) == 2
    engine.session.close()


def test_all_forms_of_one_network_are_measured_and_a_choice_is_made() -> None:
    values, _ = spot_pictures(16, seed=4)
    quantized = quantize(spot_network(), values)
    content, spec = float_file(spot_network(), values)
    files: speed.Files = {"onnx": (quantized.spec, quantized.shipped), FLOAT: (spec, content)}
    found = speed.of_files(files, values, threads=1, rounds=2)
    assert found["onnx"].relative == 1.0 and found[FLOAT].relative > 0
    assert found[FLOAT].peak_memory_bytes is None
    assert formats.choose(found, 1).precision in ("int8", "float32")
