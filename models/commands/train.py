"""Trains, proves and packs the bundle: `python -m models.commands.train --data DIR`.

Rules:
- Figures and thresholds come from cross-validation over speakers: each clip is scored by an int8 network that never
  heard its speaker, and in noise that it never heard either. The shipped network has heard them all.
- Training starts from MLPerf Tiny's published weights, which never heard these speakers (they are its test set).
- A trained network is kept under `work/` by the digest of what it learned from, its settings and its code, so that a
  run that was cut off goes on where it ended.
"""

import argparse
import copy
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export import golden, onnx_export
from export.build import BuildReport, build_bundle
from export.provenance import code_commit
from export.quantize import quantize
from export.recipe import BuildData, Labelled, Recipe, Sound, split_by_group
from models.commands import fit as fitting
from models.commands import network as networks
from models.commands.augment import at_snr, versions
from models.commands.data import FOLDS, INPUT, LABELS, TEST_NOISE, TRAIN_NOISE, Clip, folds_of, load_clips
from models.commands.fit import BATCH, PEAK_RATE, TEACHER_SHARE, TEMPERATURE, fit
from models.commands.network import CommandNet, published
from models.commands.scores import figures
from models.kept import keep
from models.realdata import folder_of
from models.sounds.clips import digest_of, noises

NAME, VERSION = "commands", "1.0.0"
HERE = Path(__file__).parent
WORK = HERE / "work"
VERSIONS, EPOCHS, SEED = 16, 5, 1
SNR_DB = (20, 10, 5, 0)
_CREATED_AT = "2026-11-23T20:00:00Z"
_RANGE_EXAMPLES = 512
_PILOT_SHARE, _PILOT_SEED = 0.3, 1
_QUIETER_DB = (0.0, -6.0, -12.0)
"""The same word said farther away is good input as well: the reference holds it at these levels."""
_NOTE = "each clip scored by a network that never heard its speaker; silence counts as a speaker of its own each time"


@dataclass(frozen=True)
class Scored:
    """Cross-validated int8 logits (n, 12): clean, and by signal-to-noise ratio."""

    clean: NDArray[np.float32]
    noisy: dict[str, NDArray[np.float32]]


def main(version: str = VERSION, out: Path | None = None, data: Path | None = None) -> BuildReport:
    """Train one network per fold and the final one, and write the bundle.

    Args:
        version: there is one.
        out: the bundle to write; default beside this file.
        data: the folder that holds `speech-commands`, `noise` and `mlperf-tiny`; default `$LINESIDE_DATA`.

    Raises:
        KeyError: there is no such version.
        ConfigError: the data is not there.
    """
    if version != VERSION:
        raise KeyError(version)
    clips, teacher, quiet, noisy = _prepared(data)
    labels = np.array([clip.label for clip in clips], np.intp)
    heard: dict[int | None, NDArray[np.float32]] = {None: at_snr(clips, {}, None, SEED)}
    unheard_noise = noises(folder_of("noise", data), TEST_NOISE, INPUT.sample_rate_hz)
    heard |= {snr: at_snr(clips, unheard_noise, snr, SEED) for snr in SNR_DB}
    scored = _cross_validated(clips, teacher, quiet, noisy, heard)
    print("training on all speakers", file=sys.stderr)
    network = trained(teacher, quiet, noisy, np.tile(labels, VERSIONS))
    speakers = np.array([clip.speaker for clip in clips])
    found = figures(
        scored.clean.argmax(1) == labels,
        labels,
        speakers,
        {f"{snr} dB": logits.argmax(1) == labels for snr, logits in scored.noisy.items()},
    )
    all_scored = Labelled(heard[None], labels, speakers, scored.clean)
    pilot, heldout = split_by_group(all_scored, _PILOT_SHARE, _PILOT_SEED)
    build_data = BuildData(
        quantize=_ranges(noisy),
        heldout=heldout,
        pilot=pilot,
        reference=_reference(clips),
    )
    report = build_bundle(_recipe(clips, found), network, build_data, out or HERE / f"{NAME}-{VERSION}.lsb")
    keep(report, "each speaker by a network that never heard them")
    print(found, file=sys.stderr)
    return report


def judged(data: Path | None = None) -> tuple[Labelled, None]:
    """Return all clips, clean, with logits of networks that never heard their speaker; for `models.kept`.

    Raises:
        ConfigError: the data is not there.
    """
    clips, teacher, quiet, noisy = _prepared(data)
    clean = at_snr(clips, {}, None, SEED)
    scored = _cross_validated(clips, teacher, quiet, noisy, {None: clean})
    labels, speakers = np.array([clip.label for clip in clips], np.intp), np.array([clip.speaker for clip in clips])
    return Labelled(clean, labels, speakers, scored.clean), None


def trained(
    teacher: CommandNet, quiet: NDArray[np.float32], noisy: NDArray[np.float32], labels: NDArray[np.intp]
) -> CommandNet:
    """Return the network trained on these copies, from `work/` if it was trained before."""
    path = WORK / f"{_digest(teacher, quiet, noisy, labels)[:16]}.pt"
    if path.exists():
        found = copy.deepcopy(teacher)
        found.load_state_dict(torch.load(path, weights_only=True))
        return found.eval()
    made = fit(teacher, quiet, noisy, labels, epochs=EPOCHS, seed=SEED)
    WORK.mkdir(exist_ok=True)
    torch.save(made.state_dict(), path)
    return made


def _digest(teacher: CommandNet, *arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{EPOCHS} {SEED} {torch.__version__}".encode())
    for module in (fitting, networks):
        digest.update(Path(str(module.__file__)).read_bytes())
    for values in (*(weight.numpy() for weight in teacher.state_dict().values()), *arrays):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _prepared(data: Path | None) -> tuple[list[Clip], CommandNet, NDArray[np.float32], NDArray[np.float32]]:
    """Return clips, the published network, and their changed copies without and with noise."""
    clips = load_clips(folder_of("speech-commands", data))
    teacher = published(folder_of("mlperf-tiny", data) / "kws_ref_model.tflite")
    print("reading noise and changing clips", file=sys.stderr)
    quiet, noisy = versions(clips, noises(folder_of("noise", data), TRAIN_NOISE, INPUT.sample_rate_hz), VERSIONS, SEED)
    return clips, teacher, quiet, noisy


def _cross_validated(
    clips: list[Clip],
    teacher: CommandNet,
    quiet: NDArray[np.float32],
    noisy: NDArray[np.float32],
    heard: dict[int | None, NDArray[np.float32]],
) -> Scored:
    folds = folds_of(clips)
    labels = np.array([clip.label for clip in clips], np.intp)
    of_version = np.tile(np.arange(len(clips)), VERSIONS)
    answers = {snr: np.zeros((len(clips), len(LABELS)), np.float32) for snr in heard}
    for fold in range(FOLDS):
        print(f"training without the speakers of fold {fold + 1} of {FOLDS}", file=sys.stderr)
        kept = folds[of_version] != fold
        network = trained(teacher, quiet[kept], noisy[kept], labels[of_version][kept])
        left_out = np.flatnonzero(folds == fold)
        for snr, values in heard.items():
            answers[snr][left_out] = _int8_logits(network, _ranges(noisy[kept]), values[left_out])
        right = answers[None][left_out].argmax(1) == labels[left_out]
        print(f"fold {fold + 1}: {right.mean():.1%} clean", file=sys.stderr)
    return Scored(answers[None], {str(snr): logits for snr, logits in answers.items() if snr is not None})


def _int8_logits(network: CommandNet, ranges: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    quantized = quantize(onnx_export.float_onnx(network, (1, *values.shape[1:3])), ranges)
    return golden.outputs(quantized.shipped, quantized.spec, values)


def _ranges(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return examples that set the ranges of the int8 network."""
    return values[np.random.default_rng(SEED).permutation(len(values))[:_RANGE_EXAMPLES]]


def _reference(clips: list[Clip]) -> list[Sound]:
    gains = [np.float32(10 ** (level / 20)) for level in _QUIETER_DB]
    return [(clip.samples * gain, INPUT.sample_rate_hz) for clip in clips for gain in gains]


def _recipe(clips: list[Clip], found: dict[str, Any]) -> Recipe:
    lineage: dict[str, Any] = {
        "code": code_commit(),
        "recipe": "models/commands/train.py",
        "dataset": "part of the test files of Google Speech Commands v0.02, CC BY 4.0; noise: ESC-10, CC BY 3.0",
        "dataset_digest": digest_of((clip.name, clip.samples) for clip in clips),
        "starts_from": "kws_ref_model.tflite of MLPerf Tiny (github.com/mlcommons/tiny), Apache-2.0",
        "noise_folds": {"training": list(TRAIN_NOISE), "measuring": list(TEST_NOISE)},
        "training_clips": len(clips),
        "hyperparameters": {
            "versions": VERSIONS,
            "epochs": EPOCHS,
            "batch": BATCH,
            "peak_rate": PEAK_RATE,
            "teacher_share": TEACHER_SHARE,
            "temperature": TEMPERATURE,
        },
        "seed": SEED,
    }
    return Recipe(
        name=NAME,
        version=VERSION,
        task="keyword",
        input=INPUT,
        labels=LABELS,
        created_at=_CREATED_AT,
        description="Ten spoken commands, silence and unknown words, also in noise.",
        alpha_error=0.05,
        delta=0.05,
        unit="speaker",
        guarantee_note=_NOTE,
        runtimes=("onnx", "tflite"),
        memory_bytes=32 * 2**20,
        lineage=lineage,
        metrics={"cross_validated": found},
        limits=HERE / "limits.toml",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.commands.train", description="Train and pack commands.")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets (default: $LINESIDE_DATA)")
    parser.add_argument("--out", type=Path, default=None, help="the bundle to write (default: beside this file)")
    options = parser.parse_args()
    report = main(VERSION, options.out, options.data)
    print(f"{report.path} {report.ref.size_bytes} bytes", report.figures)
