"""The committed bundle of commands: opens, gives its golden answers, is small, and keeps speakers apart."""

from pathlib import Path

import numpy as np
import pytest

from edge.bundle import Bundle, load
from edge.engines import EngineSettings, open_engine
from edge.wire.manifest import AudioInput, KeywordPolicy
from models.commands.augment import at_snr, noisy
from models.commands.data import FOLDS, INPUT, LABELS, Clip, folds_of, load_clips
from models.commands.measure import BUNDLE, measure
from models.commands.scores import interval
from models.sounds.augment import level
from tests.data import real_data

MAX_BYTES = 150_000
SECOND = INPUT.sample_rate_hz


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load(BUNDLE)


def clips_of(speakers: int, each: int) -> list[Clip]:
    """Return clips of tones, some per speaker."""
    tone = (0.3 * np.sin(np.arange(SECOND) / 9)).astype(np.float32)
    return [Clip(f"{s}-{n}", n % 10, f"speaker-{s}", tone) for s in range(speakers) for n in range(each)]


def test_committed_bundle_is_small_and_knows_twelve_classes(bundle: Bundle) -> None:
    assert bundle.ref.size_bytes <= MAX_BYTES
    assert bundle.manifest.labels == LABELS
    assert isinstance(bundle.manifest.input, AudioInput) and bundle.manifest.input.features == "mfcc"


def test_card_figures_stand_in_the_manifest(bundle: Bundle) -> None:
    found = bundle.manifest.metrics["cross_validated"]
    assert found["accuracy"] >= 0.90 and found["interval"][0] <= found["accuracy"] <= found["interval"][1]
    assert found["speakers"] >= 80 and set(found["by_class"]) == set(LABELS)
    noises = [found["by_noise"][snr]["accuracy"] for snr in ("20 dB", "10 dB", "5 dB", "0 dB")]
    assert noises == sorted(noises, reverse=True)
    card = (BUNDLE.parent / "README.md").read_text()
    assert f"{found['accuracy']:.1%}".replace("%", " %") in card


def test_bound_is_kept_by_speaker(bundle: Bundle) -> None:
    policy = bundle.manifest.policy
    assert isinstance(policy, KeywordPolicy) and policy.guarantee is not None
    assert policy.guarantee.unit == "speaker" and policy.guarantee.coverage > 0.3


@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_golden_examples_replay(runtime: str, bundle: Bundle) -> None:
    engine = open_engine(bundle, EngineSettings(runtime=runtime, isolation="inline", deadline_s=60))  # type: ignore[arg-type]
    engine.session.close()


def test_clips_of_one_speaker_stand_in_one_fold() -> None:
    clips = clips_of(30, 7)
    folds = folds_of(clips)
    for speaker in {clip.speaker for clip in clips}:
        assert len({int(fold) for clip, fold in zip(clips, folds, strict=True) if clip.speaker == speaker}) == 1
    assert np.ptp(np.bincount(folds, minlength=FOLDS)) <= 7


def test_noise_is_mixed_in_at_the_level_that_was_asked_for() -> None:
    clip = clips_of(1, 1)[0]
    noise = {"hum": [np.random.default_rng(1).normal(0, 0.02, 3 * SECOND).astype(np.float32)]}
    both = noisy(clip, clip.samples, noise, 10.0, np.random.default_rng(2))
    rest = both - clip.samples
    assert 20 * np.log10(level(clip.samples) / level(rest)) == pytest.approx(10.0, abs=0.1)
    assert at_snr([clip], noise, None, 1).shape == (1, 49, 10, 1)


def test_interval_over_speakers_is_wider_than_over_clips() -> None:
    speakers = np.repeat([f"s{n}" for n in range(20)], 25)
    right = np.repeat(np.arange(20) % 4 > 0, 25)
    low, high = interval(right, speakers)
    alone_low, alone_high = interval(right, np.arange(len(right)).astype(str))
    assert low < 0.75 < high
    assert high - low > 2 * (alone_high - alone_low)


@pytest.mark.real_data
def test_clips_go_all_the_way_as_on_a_device() -> None:
    clips = load_clips(real_data("speech-commands"))[::10]
    figures = measure(Path(BUNDLE), clips)
    assert figures.accuracy >= 0.92 and figures.turned_away == 0
    assert figures.wrong_share <= 0.05
