"""The gate: what it measures means what it says, and nothing that cannot be judged gets past."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.gate import check, outside, picture_metrics, sound_metrics
from edge.preprocess import F32, U8
from edge.values import Window
from edge.wire.manifest import PICTURE_METRICS, SOUND_METRICS, AudioInput, Limits, Manifest
from tests.bundles import bundle

RATE_HZ = 8000


def flat(value: int | tuple[int, int, int], side: int = 64) -> U8:
    """Return a picture of one colour, BGR."""
    return np.full((side, side, 3), value, np.uint8)


def board(side: int = 256, cell: int = 8) -> U8:
    """Return a black and white board."""
    y, x = np.mgrid[0:side, 0:side] // cell
    return np.repeat((((x + y) % 2) * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def window(data: Any, **changes: Any) -> Window:
    """Return a window with this data."""
    return Window(source="test", name="a", key="a", media_type="image/png", data=data, **changes)


def manifest(**changes: Any) -> Manifest:
    """Return the manifest of a small inspection bundle: pictures of at least 4 pixels a side."""
    return bundle(**changes).manifest


def hearing(**changes: Any) -> Manifest:
    """Return a manifest whose input is sound of at least 0.1 s."""
    return manifest().model_copy(update={"input": AudioInput(sample_rate_hz=RATE_HZ, window_s=1.0, **changes)})


def sine(amplitude: float, seconds: float = 0.5) -> F32:
    """Return a sine of this amplitude."""
    at = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (amplitude * np.sin(2 * np.pi * 440 * at)).astype(np.float32)


def test_brightness_and_contrast_of_known_pictures() -> None:
    black, gray, white = (picture_metrics(flat(value)) for value in (0, 128, 255))
    assert black["brightness"] == 0 and white["brightness"] == 1
    assert gray["brightness"] == pytest.approx(128 / 255)
    assert gray["contrast"] == gray["sharpness"] == gray["saturation"] == 0
    assert picture_metrics(board())["contrast"] == pytest.approx(0.5, abs=0.01)


def test_saturation_tells_colour_from_gray() -> None:
    assert picture_metrics(flat((0, 0, 255)))["saturation"] == 1
    assert picture_metrics(flat((100, 100, 200)))["saturation"] == pytest.approx(0.5, abs=0.01)


def test_blur_lowers_sharpness_every_time() -> None:
    sharp = board()
    values = [picture_metrics(sharp)["sharpness"]]
    for sigma in (1, 2, 4, 8):
        values.append(picture_metrics(np.asarray(cv2.GaussianBlur(sharp, (0, 0), sigma), np.uint8))["sharpness"])
    assert values == sorted(values, reverse=True) and values[0] > 10 * values[-1]


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 255))
@settings(max_examples=60)
def test_any_size_is_measured_with_finite_numbers(rows: int, columns: int, value: int) -> None:
    metrics = picture_metrics(np.full((rows, columns, 3), value, np.uint8))
    assert set(metrics) == {"brightness", "contrast", "sharpness", "saturation"}
    assert all(np.isfinite(number) for number in metrics.values())
    assert metrics["brightness"] == pytest.approx(value / 255)


def test_metrics_hardly_depend_on_the_size_of_the_picture() -> None:
    small = board(256, 32)
    large = np.asarray(cv2.resize(small, (2048, 2048), interpolation=cv2.INTER_NEAREST), np.uint8)
    a, b = picture_metrics(small), picture_metrics(large)
    assert a["brightness"] == pytest.approx(b["brightness"], abs=0.01)
    assert a["contrast"] == pytest.approx(b["contrast"], abs=0.01)


def test_level_peak_clipping_and_length_of_known_sounds() -> None:
    loud = sound_metrics(sine(0.5), RATE_HZ)
    assert loud["peak_dbfs"] == pytest.approx(-6.02, abs=0.1)
    assert loud["level_dbfs"] == pytest.approx(-9.03, abs=0.1)
    assert loud["clipping"] == 0 and loud["duration_s"] == 0.5
    clipped = sound_metrics(np.clip(sine(2.0), -1, 1), RATE_HZ)
    assert clipped["clipping"] == pytest.approx(2 / 3, abs=0.02)
    silent = sound_metrics(np.zeros(800, np.float32), RATE_HZ)
    assert silent["level_dbfs"] == silent["peak_dbfs"] == -120
    assert sound_metrics(np.zeros(0, np.float32), RATE_HZ)["duration_s"] == 0


@pytest.mark.parametrize(
    ("value", "limits", "words"),
    [
        (0.5, Limits(min=0.2, max=0.8), None),
        (0.2, Limits(min=0.2, max=0.8), None),
        (0.8, Limits(min=0.2, max=0.8), None),
        (0.1999, Limits(min=0.2), "brightness 0.2 is below 0.2"),
        (0.9, Limits(max=0.8), "brightness 0.9 is above 0.8"),
        (float("nan"), Limits(min=0.2), "brightness nan is below 0.2"),
        (float("nan"), Limits(max=0.8), "brightness nan is above 0.8"),
    ],
)
def test_metric_outside_its_limits_is_named(value: float, limits: Limits, words: str | None) -> None:
    assert outside({"brightness": value}, {"brightness": limits}) == words


def test_picture_within_limits_passes_with_its_metrics() -> None:
    seen = check(window(flat(128)), manifest(gate={"brightness": {"min": 0.2, "max": 0.8}}))
    assert seen.problem is None and seen.metrics["brightness"] == pytest.approx(0.5, abs=0.01)


def test_dark_picture_is_stopped_and_its_metrics_are_kept() -> None:
    seen = check(window(flat(10)), manifest(gate={"brightness": {"min": 0.2}}))
    assert seen.problem == "brightness 0.0392 is below 0.2" and seen.metrics["brightness"] == pytest.approx(10 / 255)


def test_window_without_data_is_stopped_with_its_source_s_own_words() -> None:
    seen = check(window(None, problem="the file is empty"), manifest())
    assert (seen.problem, seen.metrics) == ("the file is empty", {})
    assert check(window(None), manifest()).problem == "no data"


@pytest.mark.parametrize("size", [(1, 1), (3, 100), (100, 3)])
def test_picture_too_small_is_stopped_with_its_size(size: tuple[int, int]) -> None:
    rows, columns = size
    seen = check(window(np.zeros((rows, columns, 3), np.uint8)), manifest())
    assert seen.problem == f"picture is {columns}×{rows} pixels, shorter than 4 on a side"


@pytest.mark.parametrize(
    "data",
    [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3), np.uint16), sine(0.5)],
)
def test_data_of_another_kind_than_the_bundle_s_is_stopped(data: Any) -> None:
    problem = check(window(data), manifest()).problem
    assert problem is not None and problem.startswith("expected a colour picture of 8 bits")


def test_short_sound_is_stopped_and_sound_in_stereo_too() -> None:
    short = check(window(sine(0.5, 0.05), sample_rate_hz=RATE_HZ), hearing()).problem
    assert short == "sound is 0.050 s long, shorter than 0.1 s"
    assert check(window(sine(0.5), sample_rate_hz=RATE_HZ), hearing()).problem is None
    stereo = check(window(np.zeros((800, 2), np.float32)), hearing()).problem
    assert stereo == "expected mono sound, got shape (800, 2)"
    picture = check(window(flat(5)), hearing()).problem
    assert picture is not None


def test_length_of_sound_is_judged_at_its_own_rate() -> None:
    at_48k = window(np.zeros(2400, np.float32), sample_rate_hz=48_000)  # 0.05 s, but 0.3 s if it were at 8 kHz
    assert check(at_48k, hearing()).problem is not None


def test_manifest_knows_what_the_gate_measures() -> None:
    assert set(picture_metrics(flat(128))) == PICTURE_METRICS
    assert set(sound_metrics(np.zeros(800, np.float32), 8000)) == SOUND_METRICS


def test_share_of_speech_is_measured_of_segments_alone() -> None:
    segment, whole = (window(sine(0.5), sample_rate_hz=RATE_HZ, speech_share=share) for share in (0.625, None))
    assert check(segment, hearing()).metrics["speech_share"] == 0.625
    assert check(whole, hearing()).metrics.keys() == SOUND_METRICS
