"""Rows for tests, plain unless said otherwise."""

import hashlib
from typing import Any

from edge.wire.base import BundleRef
from edge.wire.rows import DecisionRow, Histogram, InputRef, OutcomeRow, TelemetryRow

BUNDLE = BundleRef(name="phone_glass", version="1.0.0", digest="a" * 64, size_bytes=1000)


def decision(name: str = "p.jpg", *, raw: bytes = b"picture", **changes: Any) -> DecisionRow:
    """A part that passed; `changes` replace fields."""
    values: dict[str, Any] = {
        "seq": 1,
        "station": "glass",
        "at_ms": 1_700_000_000_000,
        "boot_id": "boot",
        "monotonic_ms": 5,
        "mode": "partial",
        "verdict": "pass",
        "action": "pass",
        "label": "good",
        "confidence": 0.98,
        "scores": {"good": 0.98, "scratch": 0.02},
        "bundle": BUNDLE,
        "runtime": "onnxruntime 1.32.0",
        "policy": {"pass_max": 0.1, "divert_min": 0.9},
        "input": InputRef(
            source="folder",
            name=name,
            digest=hashlib.sha256(raw).hexdigest(),
            media_type="image/jpeg",
            size_bytes=len(raw),
            kept=False,
        ),
        "metrics": {"brightness": 0.5},
        "latency_ms": {"infer": 1.7, "total": 2.1},
    }
    return DecisionRow(**(values | changes))


def outcome(decision_seq: int, **changes: Any) -> OutcomeRow:
    """The action of that decision was done."""
    values: dict[str, Any] = {"seq": 1, "decision_seq": decision_seq, "at_ms": 1, "state": "done", "actuator": "log"}
    return OutcomeRow(**(values | changes))


def telemetry(**changes: Any) -> TelemetryRow:
    """One minute of the station."""
    values: dict[str, Any] = {
        "seq": 1,
        "station": "glass",
        "model": "phone_glass",
        "bundle": BUNDLE,
        "started_at_ms": 0,
        "ended_at_ms": 60_000,
        "counts": {"decisions": 3},
        "histograms": {"latency_ms.total": Histogram(edges=[1.0, 2.0], counts=[0, 3, 0])},
    }
    return TelemetryRow(**(values | changes))
