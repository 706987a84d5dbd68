"""How many words does each recogniser get wrong, and how long does it take?

Rules:
- Word error rate (jiwer) over sentences with people's own transcripts, both written alike by Whisper's rules for
  English; with the sound as it is, and with what the voice front end cuts out of it.
- Time is that of the session alone, on the threads given, in this process.
"""

import time
from pathlib import Path
from typing import Any

import jiwer
import numpy as np

from benchmarks.tables import print_table
from edge.bundle import load
from edge.errors import ConfigError
from edge.preprocess import F32, audio_tensor
from edge.recognised import text_of
from edge.runtimes import open_session
from edge.runtimes.interface import Session
from edge.sources.segments import open_segmenter
from models.sentences.data import INPUT, Utterance, load_sentences, written

BUNDLES = ("sentences-1.0.0.lsb", "sentences_small-1.0.0.lsb")
FOLDER = Path(__file__).parents[1] / "models" / "sentences"
LEAD_S = 0.5
"""Silence around each sentence for the voice front end, as a microphone would give it."""


def main(data: Path, *, as_json: bool = False, threads: int = 2) -> list[dict[str, Any]]:
    """Measure both recognisers, print the table.

    Raises:
        ConfigError: the folder does not hold the sentences.
    """
    if not (data / "sentences" / "transcripts.json").exists():
        raise ConfigError(f"{data}: expected a folder sentences with transcripts.json", hint="see models/sentences")
    sentences = load_sentences(data / "sentences")
    rows = [row for name in BUNDLES for row in _measured(FOLDER / name, sentences, threads)]
    print_table(f"Words understood, {len(sentences)} sentences, {threads} threads", rows, as_json=as_json)
    return rows


def _measured(path: Path, sentences: list[Utterance], threads: int) -> list[dict[str, Any]]:
    bundle = load(path)
    spec, note = bundle.model(bundle.manifest.prefer)
    session = open_session(bundle.manifest.prefer, note, spec, threads=threads)
    try:
        whole = [[one.samples] for one in sentences]
        cut = [_segments(one.samples) for one in sentences]
        return [
            _row(bundle.ref.name, front, session, sentences, pieces)
            for front, pieces in (("none", whole), ("cascade", cut))
        ]
    finally:
        session.close()


def _segments(sound: F32) -> list[F32]:
    """Return what the voice front end cuts out, as `voice` does by default."""
    quiet = np.zeros(round(LEAD_S * INPUT.sample_rate_hz), np.float32)
    segmenter = open_segmenter({"kind": "cascade"}, INPUT.sample_rate_hz)
    found = segmenter.add(np.concatenate([quiet, sound, quiet]))
    last = segmenter.flush()
    return [segment.samples for segment in (*found, last) if segment is not None]


def _row(
    name: str, front: str, session: Session, sentences: list[Utterance], pieces: list[list[F32]]
) -> dict[str, Any]:
    texts, times_ms = [], []
    for segments in pieces:
        said = []
        for samples in segments:
            started = time.perf_counter()
            numbers = session.infer(audio_tensor(samples, INPUT.sample_rate_hz, INPUT))
            times_ms.append((time.perf_counter() - started) * 1000)
            said.append(text_of(numbers[2:]))
        texts.append(written(" ".join(said)))
    error = jiwer.wer([written(one.text) for one in sentences], texts)
    p50, p95 = np.percentile(times_ms, [50, 95])
    return {
        "recogniser": name,
        "vad": front,
        "word_error_rate": round(float(error), 4),
        "right": round(float(np.mean([written(o.text) == t for o, t in zip(sentences, texts, strict=True)])), 4),
        "p50_ms": round(float(p50), 1),
        "p95_ms": round(float(p95), 1),
    }
