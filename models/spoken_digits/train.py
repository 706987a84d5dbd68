"""Trains, proves and packs the bundle: `python -m models.spoken_digits.train --data DIR`.

Rules:
- Recordings 0 to 9 of every speaker are neither trained on, nor do they set a threshold, a range or a limit.
- The threshold comes from cross-validation over speakers: each is scored by an int8 network that never heard them.
- Synthesised speech trains but proves nothing.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.preprocess import audio_shape
from export import golden, onnx_export
from export.build import BuildReport, build_bundle
from export.quantize import quantize
from export.recipe import BuildData, Labelled, Recipe, Sound, split_by_group
from models.realdata import folder_of
from models.spoken_digits.augment import features, plain_features
from models.spoken_digits.data import (
    FIRST_TRAINED,
    INPUT,
    LABELS,
    Recording,
    digest_of,
    load_recordings,
    synthesise,
)
from models.spoken_digits.fit import BATCH, PEAK_RATE, fit
from models.spoken_digits.network import DigitNet

NAME, VERSION = "spoken_digits", "1.0.0"
HERE = Path(__file__).parent
STEPS, FOLD_STEPS, SEED = 2400, 1200, 1
_CREATED_AT = "2026-11-23T16:00:00Z"
_SYNTHETIC_COUNT, _SYNTHETIC_SEED = 4000, 7
_REAL_VERSIONS, _SYNTHETIC_VERSIONS = 6, 2
"""Changed copies of each recording; features are changed once more whenever a copy is used."""
_RANGE_EXAMPLES = 512
_PILOT_SHARE, _PILOT_SEED = 0.3, 1
_QUIETER_DB = (0.0, -6.0, -12.0)
"""The same word said farther away is good input as well: the reference holds it at these levels."""
_NOTE = (
    "each speaker scored by a network that never heard them, yet there are only five, so recordings are less "
    "independent than the bound takes them to be"
)


def main(version: str = VERSION, out: Path | None = None, data: Path | None = None) -> BuildReport:
    """Train the final network and one per speaker left out, and write the bundle.

    Args:
        version: there is one.
        out: the bundle to write; default beside this file.
        data: the folder that holds `spoken-digits`; default `$LINESIDE_DATA`.

    Raises:
        KeyError: there is no such version.
        ConfigError: the data is not there.
    """
    if version != VERSION:
        raise KeyError(version)
    folder = folder_of("spoken-digits", data)
    recordings = [one for one in load_recordings(folder) if one.trainable]
    synthetic = synthesise(_SYNTHETIC_COUNT, _SYNTHETIC_SEED)
    print(f"changing {len(recordings)} recordings and {len(synthetic)} synthesised words", file=sys.stderr)
    speech = prepared(recordings, synthetic)
    scored, unheard = cross_validated(recordings, speech)
    print("training on all speakers", file=sys.stderr)
    network = fit(speech.values, speech.labels, steps=STEPS, seed=SEED)
    pilot, heldout = split_by_group(scored, _PILOT_SHARE, _PILOT_SEED)
    build_data = BuildData(
        golden=golden_inputs(recordings),
        quantize=speech.ranges(),
        heldout=heldout,
        pilot=pilot,
        reference=_reference(recordings),
    )
    recipe = _recipe(recordings, synthetic, unheard)
    return build_bundle(recipe, network, build_data, out or HERE / f"{NAME}-{VERSION}.lsb")


@dataclass(frozen=True)
class Speech:
    """Features of changed copies, their digits and who said them."""

    values: NDArray[np.float32]
    labels: NDArray[np.intp]
    speakers: NDArray[np.str_]

    def without(self, speaker: str) -> "Speech":
        """Return what the others said."""
        kept = self.speakers != speaker
        return Speech(self.values[kept], self.labels[kept], self.speakers[kept])

    def ranges(self) -> NDArray[np.float32]:
        """Return examples that set the ranges of the int8 network."""
        return self.values[np.random.default_rng(SEED).permutation(len(self.values))[:_RANGE_EXAMPLES]]


def prepared(recordings: list[Recording], synthetic: list[Recording]) -> Speech:
    """Return features of several changed copies of each recording."""
    rng = np.random.default_rng(SEED)
    parts = [(recordings, _REAL_VERSIONS), (synthetic, _SYNTHETIC_VERSIONS)]
    made = [features(words, versions, rng) for words, versions in parts]
    speakers = [one.speaker for words, versions in parts for _ in range(versions) for one in words]
    return Speech(
        np.concatenate([values for values, _ in made]),
        np.concatenate([labels for _, labels in made]),
        np.array(speakers),
    )


def cross_validated(recordings: list[Recording], speech: Speech) -> tuple[Labelled, dict[str, float]]:
    """Score every speaker by an int8 network that never heard them; return that and each speaker's accuracy."""
    values, labels, logits, accuracy = [], [], [], {}
    for speaker in sorted({one.speaker for one in recordings}):
        print(f"training without {speaker}", file=sys.stderr)
        others = speech.without(speaker)
        network = fit(others.values, others.labels, steps=FOLD_STEPS, seed=SEED)
        spoken, digits = plain_features([one for one in recordings if one.speaker == speaker])
        answers = _int8_logits(network, others.ranges(), spoken)
        values.append(spoken)
        labels.append(digits)
        logits.append(answers)
        accuracy[speaker] = round(float(np.mean(answers.argmax(1) == digits)), 4)
        print(f"unheard {speaker}: {accuracy[speaker]:.1%}", file=sys.stderr)
    return Labelled(np.concatenate(values), np.concatenate(labels), None, np.concatenate(logits)), accuracy


def golden_inputs(recordings: list[Recording]) -> NDArray[np.float32]:
    """Return one recording of each digit, in steps of 1/64, which pack into fewer bytes."""
    words = [next(one for one in recordings if one.digit == digit) for digit in range(len(LABELS))]
    values, _ = plain_features(words)
    return np.asarray(np.rint(values * 64) / 64, np.float32)


def _int8_logits(network: DigitNet, ranges: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    _, frames, bands, _ = audio_shape(INPUT)
    quantized = quantize(onnx_export.float_onnx(network, (1, frames, bands)), ranges)
    return golden.outputs(quantized.shipped, quantized.spec, values)


def _reference(recordings: list[Recording]) -> list[Sound]:
    gains = [np.float32(10 ** (level / 20)) for level in _QUIETER_DB]
    return [(one.samples * gain, INPUT.sample_rate_hz) for one in recordings for gain in gains]


def _recipe(recordings: list[Recording], synthetic: list[Recording], unheard: dict[str, float]) -> Recipe:
    lineage: dict[str, Any] = {
        "code": _commit(),
        "recipe": "models/spoken_digits/train.py",
        "dataset": "Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset), CC BY-SA 4.0",
        "dataset_digest": digest_of(recordings),
        "held_out": f"recordings below {FIRST_TRAINED} of every speaker",
        "training_recordings": len(recordings),
        "synthesised": {"count": len(synthetic), "seed": _SYNTHETIC_SEED, "by": "espeakng-loader 0.2.4"},
        "hyperparameters": {"steps": STEPS, "fold_steps": FOLD_STEPS, "batch": BATCH, "peak_rate": PEAK_RATE},
        "seed": SEED,
    }
    return Recipe(
        name=NAME,
        version=VERSION,
        task="keyword",
        input=INPUT,
        labels=LABELS,
        created_at=_CREATED_AT,
        description="Spoken English digits, one word at a time.",
        alpha_error=0.05,
        delta=0.05,
        unit="recording",
        guarantee_note=_NOTE,
        runtimes=("onnx", "tflite"),
        memory_bytes=32 * 2**20,
        lineage=lineage,
        metrics={"unheard_speaker_accuracy": unheard},
    )


def _commit() -> str:
    """Return the commit of the code, or `unknown` outside of a repository."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m models.spoken_digits.train", description="Train and pack spoken_digits."
    )
    parser.add_argument(
        "--data", type=Path, default=None, help="folder that holds spoken-digits/ (default: $LINESIDE_DATA)"
    )
    parser.add_argument("--out", type=Path, default=None, help="the bundle to write (default: beside this file)")
    options = parser.parse_args()
    report = main(VERSION, options.out, options.data)
    print(f"{report.path} {report.ref.size_bytes} bytes", report.figures)
