"""Fills a control plane's folder with half an hour of a plausible plant, to look at the console and to test it.

python -m tests.browser.sample_data DIR            fill DIR
python -m tests.browser.sample_data DIR --serve    fill it if it is empty, and serve the console over it
"""

import argparse
import io
import math
import random
import time
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from cloud.clock import SystemClock
from edge.wire.messages import Health, Refusal, SlotReport, StationReport
from edge.wire.rows import LATENCY_EDGES_MS, UNIT_EDGES
from models.phone_glass.generate import series
from models.phone_glass.generator import Studio
from tests.browser.sample_rollouts import CUT_SHORT, add_rollouts
from tests.cloud.console.plant import LABELS, AnyRow, Plant, histogram, ref

SPAN_S = 1800
STEP_S = 10
"""One telemetry window, and one batch of rows, in so many seconds."""
PER_STEP = 4
PICTURES = 48
DIM_FOR_S = 700
"""How long ago the lamp of box-2 went dim."""
AWAY_FOR_S = 260
"""How long ago box-3 lost its link."""
REVIEW_FOR_S = 900
"""Older deferrals and audits have been reviewed."""
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SHARPNESS_EDGES = [round(20 * 1.5**i, 1) for i in range(12)]
BOXES = ("box-1", "box-2", "box-3")


class SampleClock(SystemClock):
    """A wall clock that is moved through the sample's history."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def at(self, now_ms: int) -> None:
        """Let it be this moment."""
        self._now_ms = now_ms


@dataclass(frozen=True)
class Shot:
    """A picture with what it shows."""

    jpeg: bytes
    label: str
    severity: float


def fill(folder: Path, *, now_ms: int, seed: int = 1, pictures: int = PICTURES, span_s: int = SPAN_S) -> None:
    """Fill the folder so that the plant's last half hour ends now."""
    rng = random.Random(seed)
    clock = SampleClock(now_ms - span_s * 1000)
    plant = Plant(folder, clock)
    try:
        _registry(plant, rng)
        _enrol(plant)
        shots, dim = _pictures("mixed", seed, pictures), _pictures("dim", seed + 1, pictures // 3)
        for shot in [*shots, *dim]:
            plant.arrive("box-1", shot.jpeg)
        for left_s in range(span_s, 0, -STEP_S):
            clock.at(now_ms - (left_s - STEP_S) * 1000)
            for box in BOXES:
                if box == "box-3" and left_s < AWAY_FOR_S:
                    continue
                is_dim = box == "box-2" and left_s < DIM_FOR_S
                plant.up(box, list(_rows(plant, box, dim if is_dim else shots, rng, left_s, dim=is_dim)))
            if left_s % 60 == 0:
                _speak(plant, rng)
        _events(plant, now_ms)
        add_rollouts(plant, now_ms)
        _reports(plant, clock, now_ms)
    finally:
        plant.close()


def sound(seed: int, seconds: float = 0.6) -> bytes:
    """Return a WAV of a voice-like sound, 8 kHz, 16 bit, mono."""
    t = np.arange(int(8000 * seconds)) / 8000
    pitch = 110 + 25 * (seed % 5) + 12 * np.sin(2 * math.pi * 2.2 * t)
    phase = 2 * math.pi * np.cumsum(pitch) / 8000
    voice = np.sum([np.sin(k * phase) / k for k in range(1, 9)], axis=0)
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((voice * np.hanning(len(t)) * 9000).astype("<i2").tobytes())
    return stream.getvalue()


def _pictures(light: str, seed: int, count: int) -> list[Shot]:
    made = series(seed=seed, start=0, count=count, light=light, defect_share=0.4, studio=Studio())
    return [Shot(shot.jpeg, shot.part.label, shot.part.severity) for shot in made]


def _registry(plant: Plant, rng: random.Random) -> None:
    reference = {
        "brightness": histogram(UNIT_EDGES, [rng.gauss(0.47, 0.05) for _ in range(400)]).model_dump(),
        "contrast": histogram(UNIT_EDGES, [rng.gauss(0.19, 0.03) for _ in range(400)]).model_dump(),
        "sharpness": histogram(SHARPNESS_EDGES, [rng.lognormvariate(5.2, 0.5) for _ in range(400)]).model_dump(),
        "confidence": histogram(UNIT_EDGES, [1 - rng.expovariate(18) for _ in range(400)]).model_dump(),
    }
    sample = {"method": "Learn-then-Test with exact binomial bounds", "delta": 0.05, "n": 1800, "coverage": 0.87}
    inspect = {**sample, "alpha_escape": 0.02, "alpha_false_reject": 0.05, "unit": "part"}
    for version, state, auroc in (
        ("1.0.0", "approved", 0.981),
        ("1.1.0", "approved", 0.987),
        ("1.2.0", "candidate", 0.91),
    ):
        plant.bundle(
            ref(version=version),
            state=state,
            reference=reference,
            policy={"kind": "inspect", "pass_max": 0.0831, "divert_min": 0.9127, "guarantee": inspect},
            metrics={
                "test": {"auroc": auroc, "accuracy": auroc - 0.03, "n": 1800},
                "by_class": {"crack": round(auroc - 0.02, 3), "dent": round(auroc - 0.06, 3)},
                "slices": {"midnight under bright": {"auroc": round(auroc - 0.03, 3)}},
                "latency_ms": {"onnx": 1.9},
            },
            lineage={"code": "4f1c2ab", "dataset_digest": "3b1f0c…", "seed": 7, "hyperparameters": {"epochs": 40}},
            audit=_audit(passed=state == "approved", recall=auroc - 0.04),
        )
    keyword = {"kind": "keyword", "accept_min": 0.82, "guarantee": {**sample, "alpha_error": 0.03, "unit": "speaker"}}
    for version in ("1.0.0", "1.1.0"):
        plant.bundle(
            ref("spoken_digits", version),
            task="keyword",
            labels=DIGITS,
            policy=keyword,
            description="Spoken digits, 8 kHz",
            metrics={"test": {"accuracy": 0.968, "n": 1250}},
            lineage={"commit": "4f1c2ab", "seed": 3},
        )


def _audit(*, passed: bool, recall: float) -> dict[str, Any]:
    limit = {"limit": "recall of crack: at least 0.9", "passed": passed, "value": recall, "total": 240}
    return {"passed": passed, "limits": [limit], "not_tested": [], "examples": 1800, "groups": 900, "judged_by": "test"}


def _enrol(plant: Plant) -> None:
    plant.enrol("box-1", profile="x86-box")
    plant.enrol("box-2", profile="x86-box")
    plant.enrol("box-3", site="hall-2", profile="arm-box")
    plant.enrol("box-4", site="hall-2", profile="arm-box")
    plant.enrol("phone-1", site="hall-1", profile="phone", models=["spoken_digits"])


def _rows(
    plant: Plant, box: str, shots: Sequence[Shot], rng: random.Random, left_s: int, *, dim: bool
) -> Iterator[AnyRow]:
    """Yield the decisions and the telemetry of one window."""
    now_ms = plant.clock.now_ms()
    seen: dict[str, list[float]] = {"latency_ms.total": [], "brightness": [], "confidence": []}
    for i in range(PER_STEP):
        shot = rng.choice(shots)
        at_ms = now_ms - (PER_STEP - 1 - i) * STEP_S * 1000 // PER_STEP
        latency_ms = rng.lognormvariate(1.25, 0.22) + (14 if rng.random() < 0.01 else 0)
        steps = {"preprocess": 0.6, "gate": 0.3, "infer": latency_ms - 1.6, "commit": 0.4, "total": latency_ms}
        bright = rng.gauss(0.21 if dim else 0.47, 0.04)
        row = plant.decision(
            box,
            at_ms=at_ms,
            bundle=ref(version="1.1.0"),
            input=plant.input_ref(f"belt/{at_ms // 1000}.jpg", shot.jpeg),
            metrics={"brightness": round(bright, 3), "contrast": round(rng.gauss(0.19, 0.02), 3)},
            latency_ms={name: round(value, 2) for name, value in steps.items()},
            **_judged(shot, rng, dim=dim, review=left_s < REVIEW_FOR_S),
        )
        seen["latency_ms.total"].append(latency_ms)
        seen["brightness"] += [bright] * 4
        seen["confidence"] += [row.confidence or 0.5] * 4
        yield row
    counted = {
        name: histogram(LATENCY_EDGES_MS if "." in name else UNIT_EDGES, values) for name, values in seen.items()
    }
    counted["contrast"] = histogram(UNIT_EDGES, [rng.gauss(0.19, 0.02) for _ in range(16)])
    sharp = [rng.lognormvariate(4.4 if dim else 5.2, 0.5) for _ in range(16)]
    yield plant.telemetry(box, {**counted, "sharpness": histogram(SHARPNESS_EDGES, sharp)}, bundle=ref(version="1.1.0"))


def _judged(shot: Shot, rng: random.Random, *, dim: bool, review: bool) -> dict[str, object]:
    """Return what a model could have made of a picture."""
    if dim and rng.random() < 0.15:
        detail = "brightness 0.081 is below 0.12"
        nothing: dict[str, object] = {"label": None, "confidence": None, "scores": {}, "policy": {}}
        return {"verdict": "defer", "action": "hand_over", "reason": "bad_input", "detail": detail, **nothing}
    scores = _scores(shot, rng, dim=dim)
    good = scores["good"]
    shown = {
        "scores": scores,
        "label": max(scores, key=lambda label: scores[label]),
        "policy": {"pass_max": 0.0831, "divert_min": 0.9127},
        "confidence": round(max(good, 1 - good), 4),
    }
    if 0.2 < good < 0.84 and review and rng.random() < (0.5 if dim else 0.25):
        return {**shown, "verdict": "defer", "action": "hand_over", "reason": "unsure"}
    verdict = "pass" if good > 0.5 else "divert"
    reason = "audit" if review and rng.random() < 0.03 else None
    return {**shown, "verdict": verdict, "action": verdict, "reason": reason, "audit_probability": 0.03}


def _scores(shot: Shot, rng: random.Random, *, dim: bool) -> dict[str, float]:
    if shot.label == "good":
        good = rng.betavariate(9, 1.1) * (0.72 if dim else 1.0)
    else:
        good = max(0.004, 1 - shot.severity * (0.75 if dim else 1.18))
    others = [label for label in LABELS if label != "good"]
    main = shot.label if shot.label != "good" else rng.choice(others)
    parts = {label: (1 - good) * (0.82 if label == main else 0.045) for label in others}
    return {label: round(p, 4) for label, p in {"good": good, **parts}.items()}


def _speak(plant: Plant, rng: random.Random) -> None:
    data = sound(rng.randrange(20))
    plant.arrive("phone-1", data, "audio/wav")
    word = rng.randrange(10)
    sure = rng.betavariate(6, 1.2)
    accepted = {"verdict": "accept", "action": "accept"}
    deferred = {"verdict": "defer", "action": "hand_over", "reason": "unsure"}
    row = plant.decision(
        "phone-1",
        station="voice",
        bundle=ref("spoken_digits"),
        runtime="tflite",
        label=DIGITS[word],
        confidence=round(sure, 4),
        scores={digit: round((1 - sure) / 9, 4) for digit in DIGITS} | {DIGITS[word]: round(sure, 4)},
        policy={"accept_min": 0.82},
        input=plant.input_ref("mic/utterance.wav", data, "audio/wav"),
        metrics={"level_dbfs": -21.0, "duration_s": 0.6},
        latency_ms={"infer": 0.8, "total": 2.2},
        **(accepted if sure > 0.82 else deferred),
    )
    plant.up("phone-1", [row])


def _events(plant: Plant, now_ms: int) -> None:
    belt = {"station": "belt", "model": "phone_glass"}
    rows: list[AnyRow] = [plant.event("box-2", "daemon_started", at_ms=now_ms - 5_400_000, detail="lineside 0.1.0")]
    for metric, was, now, ago_ms in (("brightness", 0.45, 0.2, 610_000), ("sharpness", 180, 86, 590_000)):
        words = f"{metric} differs from the reference: about {now:g}, was {was:g}"
        told = {"detail": words, "data": {"metric": metric, "p_value": 2e-9}, **belt}
        rows.append(plant.event("box-2", "drift_raised", "warning", at_ms=now_ms - ago_ms, **told))
    plant.up("box-2", rows)
    refused = {"model": "phone_glass", "detail": f"phone_glass 1.2.0: {CUT_SHORT}"}
    plant.up("box-3", [plant.event("box-3", "bundle_refused", "warning", at_ms=now_ms - 900_000, **refused)])
    promoted = {"model": "phone_glass", "detail": "phone_glass 1.1.0 served 200 windows in 120 s without a breach"}
    plant.up("box-1", [plant.event("box-1", "bundle_promoted", at_ms=now_ms - 1_500_000, **promoted)])


def _reports(plant: Plant, clock: SampleClock, now_ms: int) -> None:
    for box, at_ms in (("box-1", now_ms - 1200), ("box-2", now_ms - 2600), ("box-3", now_ms - 262_000)):
        clock.at(at_ms)
        _report_box(plant, box, now_ms)
    clock.at(now_ms - 258_000)
    plant.presence("box-3", online=False)
    clock.at(now_ms - 900)
    digits = ref("spoken_digits")
    voice = StationReport(model="spoken_digits", mode="partial", serving=digits, runtime="tflite int8", decisions=412)
    slots = [
        SlotReport(bundle=digits, state="good", since_ms=now_ms - 86_400_000),
        SlotReport(bundle=ref("spoken_digits", "1.1.0"), state="trial", since_ms=now_ms - 45_000),
    ]
    plant.report("phone-1", profile="phone", slots={"spoken_digits": slots}, stations={"voice": voice})


def _report_box(plant: Plant, box: str, now_ms: int) -> None:
    good, old, bad = ref(version="1.1.0"), ref(version="1.0.0"), ref(version="1.2.0")
    slots = [
        SlotReport(bundle=good, state="good", since_ms=now_ms - 1_500_000),
        SlotReport(bundle=old, state="good", since_ms=now_ms - 86_400_000),
    ]
    if box == "box-1":
        why = "3 windows in a row took longer than the deadline of 50 ms"
        slots.append(SlotReport(bundle=bad, state="bad", since_ms=now_ms - 880_000, reason=why))
    refusals = [Refusal(bundle=bad, at_ms=now_ms - 900_000, reason=CUT_SHORT)] if box == "box-3" else []
    station = StationReport(
        model="phone_glass",
        mode="partial",
        serving=good,
        runtime="onnx int8",
        decisions=4211,
        last_decision_at_ms=plant.clock.now_ms() - 800,
    )
    health = Health(
        uptime_s=5400,
        memory_bytes=118_000_000,
        disk_free_bytes=21_400_000_000,
        outbox_rows=3,
        outbox_bytes=4096,
        cpu_percent=23.5,
        temperature_c=51.0,
    )
    plant.report(box, slots={"phone_glass": slots}, stations={"belt": station}, health=health, refusals=refusals)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the control plane, made if it is not there")
    parser.add_argument("--serve", action="store_true", help="serve the console over it until Ctrl-C")
    parser.add_argument("--port", type=int, default=8440, help="port to serve on (default 8440)")
    options = parser.parse_args()
    if not (options.folder / "cloud.sqlite").exists():
        fill(options.folder, now_ms=time.time_ns() // 1_000_000)
    if options.serve:
        plant = Plant(options.folder, SystemClock())
        uvicorn.run(plant.app(), host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
