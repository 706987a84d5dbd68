"""What is said about a machine that is not here."""

import pytest

from edge.errors import ConfigError
from export.speed import FLOAT, Speed, compared, estimate


def test_without_a_measurement_nothing_is_claimed() -> None:
    assert estimate(1.5, None) == "no profile was named"
    assert "no claim for rpi4" in estimate(1.5, "rpi4")


def test_with_a_measured_factor_the_estimate_names_it() -> None:
    assert "about 4.80 ms" in estimate(1.5, "rpi4=3.2")
    assert "× 3.2" in estimate(1.5, "rpi4=3.2")


@pytest.mark.parametrize("profile", ["rpi4=", "rpi4=fast", "rpi4=-1", "rpi4=0", "rpi4=inf", "rpi4=nan"])
def test_factor_that_is_none_is_refused(profile: str) -> None:
    with pytest.raises(ConfigError, match="NAME=FACTOR"):
        estimate(1.5, profile)


def speeds(tflite: float, in_float: float) -> dict[str, Speed]:
    """Return speeds of a network that takes 2 ms in onnxruntime, and so many times that elsewhere."""
    return {
        "onnx": Speed("onnx int8", 100, 2.0, 2.5, None, 1.0),
        "tflite": Speed("tflite int8", 90, 2.0 * tflite, 3.0, None, tflite),
        FLOAT: Speed("onnx float32", 400, 2.0 * in_float, 3.0, None, in_float),
    }


def test_faster_engine_and_faster_float_are_said_with_what_to_type() -> None:
    words = compared(speeds(tflite=0.5, in_float=0.4), "onnx")
    assert "prefers onnx" in words
    assert "tflite is 2.0 times as fast here: --prefer tflite" in words
    assert "in float it is 2.5 times as fast here and 4.0 times as large: --precision float32" in words


def test_difference_that_a_busy_machine_makes_is_not_worth_a_word() -> None:
    assert compared(speeds(tflite=0.9, in_float=1.1), "onnx").count(";") == 1
