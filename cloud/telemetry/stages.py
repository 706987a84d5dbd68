"""Which stage of the pipeline a metric belongs to, what it is called, and the bins of a device's own figures; pure.

Rules:
- A station that sees has camera, gate, model and decision; one that hears has microphone, VAD, recogniser and decision.
- What the stage is follows from the metric and from whether its window heard; nobody has to list metrics twice.
- Gauges of the device get bins of a quarter octave, as latencies have: a percentile is known within 19 %.
"""

from collections.abc import Collection
from typing import Any, Literal

from edge.wire.manifest import SOUND_METRICS

Stage = Literal["camera", "gate", "model", "microphone", "vad", "recogniser", "decision", "device"]
STAGES: tuple[Stage, ...] = ("camera", "gate", "model", "microphone", "vad", "recogniser", "decision", "device")
_SEES: dict[str, Stage] = {"source": "camera", "gate": "gate", "model": "model"}
_HEARS: dict[str, Stage] = {"source": "microphone", "gate": "vad", "model": "recogniser"}
_SOURCE_STEPS = frozenset({"read", "decode", "capture"})
_GATE_STEPS = frozenset({"gate", "vad", "hang_over"})
_MODEL_STEPS = frozenset({"preprocess", "infer", "recognise", "calibrate", "wait", "server"})
_GATE_NAMES = frozenset({"duration_s", "speech_share", "reason.bad_input"})
_MODEL_NAMES = frozenset(
    {"confidence", "ood", "reason.model_error", "reason.out_of_distribution", "reason.deadline", "reason.disagreement"}
)
_DECISION_NAMES = frozenset({"decisions", "deadline_misses", "reason.unsure", "reason.audit"})
HEALTH = "health."
QUARTER_OCTAVES: list[float] = [round(0.1 * 2 ** (i / 4), 6) for i in range(200)]
"""0.1 to 10¹⁴: bytes, rows, per cent."""
DEGREES: list[float] = [float(degree) for degree in range(-40, 131)]
_BELOW_ZERO = frozenset({"level_dbfs", "peak_dbfs", "health.temperature_c", "ood"})


def hears(names: Collection[str]) -> bool:
    """Return whether a window with metrics of these names came from a station that hears."""
    return any(name in SOUND_METRICS or name == "speech_share" or name.startswith("text.") for name in names)


def stage_of(metric: str, *, hearing: bool) -> Stage:
    """Return the stage that a metric belongs to."""
    if metric.startswith(HEALTH):
        return "device"
    kind, _, name = metric.partition(".")
    place = _HEARS if hearing else _SEES
    if kind == "latency_ms":
        for names, part in ((_SOURCE_STEPS, "source"), (_GATE_STEPS, "gate"), (_MODEL_STEPS, "model")):
            if name in names:
                return place[part]
        return "decision"
    if metric in _GATE_NAMES:
        return place["gate"]
    if metric in _MODEL_NAMES or kind in ("label", "text"):
        return place["model"]
    if metric in _DECISION_NAMES or kind in ("verdict", "action", "reason"):
        return "decision"
    return place["source"]


def floor_of(metric: str) -> float | None:
    """Return what no value of a metric lies below, or None if it has no such bound."""
    return None if metric in _BELOW_ZERO else 0.0


def unit_of(metric: str) -> str:
    """Return a metric's unit as its name says it; empty for counts and shares."""
    if metric.startswith("latency_ms."):
        return "ms"
    last = metric.rsplit("_", 1)[-1]
    return {"dbfs": "dBFS", "s": "s", "bytes": "bytes", "c": "°C", "percent": "%"}.get(last, "")


def edges_of_health(metric: str) -> list[float]:
    """Return the bins of one of the device's own figures."""
    return DEGREES if metric == "health.temperature_c" else QUARTER_OCTAVES


def health_values(health: dict[str, Any]) -> dict[str, float]:
    """Return the figures of a `health` document that can be followed over time, by metric."""
    names = ("memory_bytes", "disk_free_bytes", "outbox_rows", "outbox_bytes", "uploads_waiting")
    found = {name: health.get(name) for name in (*names, "cpu_percent", "temperature_c")}
    return {
        HEALTH + name: float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and abs(value) < 1e15
    }
