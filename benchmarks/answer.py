"""How long after somebody has stopped speaking is there a result, on the device and from the prediction server?

Rules:
- Two real devices in processes of their own: a phone that hears recordings at the pace at which they were spoken, with
  pauses between them, and a prediction server on the same machine.
- End of speech is the end of the last frame that the detector took for speech: the hang-over counts. How much later
  than the recording's own end that was stands in a row of its own.
- Every segment is asked about: a deadline that nothing can keep makes a deferral of each, after the phone has done its
  work on it. So one run gives both times, on the same segments.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.devices import free_port, rows_of, running, wait_for
from benchmarks.tables import print_table
from edge.bundle import load
from edge.errors import ConfigError
from edge.preprocess import F32, resample
from edge.sound import decode_wav, encode_wav
from edge.wire.rows import SERVER_ANSWERED_EVENT, DecisionRow, EventRow

RATE_HZ, SEED = 16_000, 7
PAUSES_S = (0.7, 1.3)
TARGET_MS = 500.0
MODELS = Path(__file__).parents[1] / "models"
DIGITS = MODELS / "spoken_digits" / "spoken_digits-1.2.0.lsb"

SERVER = """\
[device]
name = "server"
[station.main]
model = "{model}"
bundle = "{bundle}"
deadline_ms = 30000
source = {{ kind = "http", port = {port} }}
actuator = {{ kind = "none" }}
"""
PHONE = """\
[device]
name = "phone"
[station.main]
model = "{model}"
bundle = "{bundle}"
isolation = "inline"
deadline_ms = 0.001
actuator = {{ kind = "none" }}
[station.main.source]
kind = "audio_file"
path = "said.wav"
watch = false
real_time = true
segments = {{ kind = "{segmenter}", hang_over_ms = {hang_over_ms} }}
[station.main.ask]
url = "http://127.0.0.1:{port}"
reasons = ["unsure", "out_of_distribution", "deadline"]
timeout_ms = 30000
"""


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    speech: Path
    """Folder of WAV files, an utterance each."""
    phone: Path = DIGITS
    server: Path = DIGITS
    segmenter: str = "cascade"
    hang_over_ms: float = 200.0
    utterances: int = 60


def main(setting: Setting, *, as_json: bool = False) -> list[dict[str, Any]]:
    """Measure and print the table.

    Raises:
        ConfigError: there are no recordings.
    """
    with tempfile.TemporaryDirectory() as folder:
        sound, ends_s = _said(setting)
        decisions, answers = _measured(Path(folder), setting, sound)
    by_seq = {row.seq: row for row in decisions}
    own = [_since_speech(row) for row in decisions]
    lags = dict(zip(by_seq, _lags(decisions, ends_s), strict=True))
    served = [event.data["latency_ms"] for event in answers]
    asked = [by_seq[event.data["decision_seq"]] for event in answers]
    phone, server = setting.phone.stem, setting.server.stem
    parts = [
        (f"on the device ({phone})", own, TARGET_MS),
        ("of it until it was known to be over", [row.latency_ms.get("hang_over", 0.0) for row in decisions], None),
        ("before that: the detector heard an end after the recording's", [*lags.values()], None),
        (f"by the server ({server})", [took["since_speech"] for took in served], TARGET_MS),
        (
            "by the server, from the recording's own end",
            [took["since_speech"] + lags[row.seq] for took, row in zip(served, asked, strict=True)],
            TARGET_MS,
        ),
        ("of it the device, hang-over included", [_since_speech(row) for row in asked], None),
        ("of it queue and network", [took["total"] - took["server"] for took in served], None),
        ("of it the server's decision", [took["server"] for took in served], None),
        ("of that its recogniser", [took.get("infer", took["server"]) for took in served], None),
    ]
    rows = [_row(name, values, target) for name, values, target in parts]
    print_table("From the end of speech to the result, ms", rows, as_json=as_json)
    return rows


def _measured(folder: Path, setting: Setting, sound: F32) -> tuple[list[DecisionRow], list[EventRow]]:
    port, phone = free_port(), folder / "phone"
    phone.mkdir()
    (phone / "said.wav").write_bytes(encode_wav(sound, RATE_HZ))
    server = SERVER.format(model=load(setting.server).ref.name, bundle=setting.server.resolve(), port=port)
    hearing = PHONE.format(
        model=load(setting.phone).ref.name,
        bundle=setting.phone.resolve(),
        segmenter=setting.segmenter,
        hang_over_ms=setting.hang_over_ms,
        port=port,
    )
    with running(folder / "server", server):
        wait_for("the server's bundle", lambda: any(e.name == "bundle_opened" for e in rows_of(folder / "server")[1]))
        with running(phone, hearing, "--drain") as process:
            process.wait()
    decisions, events = rows_of(phone)
    return decisions, [event for event in events if event.name == SERVER_ANSWERED_EVENT]


def _said(setting: Setting) -> tuple[F32, list[float]]:
    """Return the utterances one after another with pauses of a quiet room between them, and when each ends, in s."""
    paths = sorted(setting.speech.glob("*.wav"))
    if not paths:
        raise ConfigError(f"{setting.speech}: expected WAV files, found none", hint="give a folder with --speech")
    rng = np.random.default_rng(SEED)
    chosen = rng.permutation(len(paths))[: setting.utterances]
    parts: list[F32] = []
    ends_s: list[float] = []
    for index in chosen:
        samples, rate_hz = decode_wav(paths[index].read_bytes())
        pause = round(rng.uniform(*PAUSES_S) * RATE_HZ)
        parts += [rng.normal(0, 1e-4, pause).astype(np.float32), resample(samples, rate_hz, RATE_HZ)]
        ends_s.append(sum(map(len, parts)) / RATE_HZ)
    return np.concatenate([*parts, rng.normal(0, 1e-4, 2 * RATE_HZ).astype(np.float32)]), ends_s


def _lags(decisions: Sequence[DecisionRow], ends_s: Sequence[float]) -> list[float]:
    """Return how long after the nearest end of a recording each segment's speech ended, in ms; negative for before."""
    lags = []
    for row in decisions:
        start_s = float(row.input.name.rpartition(" at ")[2].removesuffix(" s"))
        end_s = start_s + row.metrics["duration_s"] - row.latency_ms.get("hang_over", 0.0) / 1000
        lags.append((end_s - min(ends_s, key=lambda true_s: abs(true_s - end_s))) * 1000)
    return lags


def _since_speech(row: DecisionRow) -> float:
    return row.latency_ms.get("hang_over", 0.0) + row.latency_ms["total"]


def _row(name: str, values: Sequence[float], target_ms: float | None) -> dict[str, Any]:
    p50, p95 = np.percentile(values, [50, 95]) if len(values) else (None, None)
    return {
        "what": name,
        "segments": len(values),
        "p50": None if p50 is None else float(p50),
        "p95": None if p95 is None else float(p95),
        "p95 promised": target_ms,
    }
