"""Puts very many decisions into a plant's tables at once, for measuring: the same rows as ingest makes, made faster."""

import random

from cloud import tables
from tests.cloud.console.plant import Plant, digest_of, histogram, ref

DEFER_SHARE = 0.04
WAITING_SHARE = 0.5
"""Of the deferrals; the others have been reviewed."""


def fill(plant: Plant, *, devices: int, decisions: int, span_ms: int, seed: int = 1) -> list[str]:
    """Enrol devices and give them decisions over the last `span_ms`; return the devices' names."""
    rng = random.Random(seed)
    now_ms = plant.clock.now_ms()
    names = [f"box-{i:03d}" for i in range(devices)]
    for name in names:
        plant.enrol(name, site=f"hall-{len(name) % 3}")
        plant.report(name)
        windows = [
            plant.telemetry(name, {"brightness": histogram([0.3, 0.5, 0.7], [rng.random() for _ in range(40)])})
            for _ in range(90)
        ]
        plant.up(name, list(windows))
    template = plant.decision("box-x").model_dump(mode="json")
    each = decisions // devices
    for name in names:
        rows = [_row(name, seq + 1, now_ms - span_ms * (each - seq) // each, template, rng) for seq in range(each)]
        with plant.services.store.write() as connection:
            connection.execute(tables.decisions.insert(), rows)
    return names


def _row(device: str, seq: int, at_ms: int, template: dict[str, object], rng: random.Random) -> dict[str, object]:
    deferred = rng.random() < DEFER_SHARE
    verdict = "defer" if deferred else "divert" if rng.random() < 0.2 else "pass"
    return {
        "device": device,
        "incarnation": f"{device}-1",
        "seq": 1_000_000 + seq,
        "at_ms": at_ms,
        "received_at_ms": at_ms + 300,
        "station": "belt",
        "model": "phone_glass",
        "version": "1.0.0",
        "digest": ref().digest,
        "verdict": verdict,
        "action": "hand_over" if deferred else verdict,
        "reason": "unsure" if deferred else None,
        "label": "good",
        "confidence": rng.random(),
        "audit_probability": 0.0,
        "input_digest": digest_of(f"{device}-{seq}"),
        "latency_ms": rng.lognormvariate(1.2, 0.3),
        "needs_review": deferred and rng.random() < WAITING_SHARE,
        "body": template,
    }
