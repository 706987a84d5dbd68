"""Puts very many decisions into a plant's SQLite file at once, for measuring: rows as ingest makes them, but fast."""

import random

from tests.cloud.console.plant import AnyRow, Plant, digest_of, histogram, ref

DEFER_SHARE = 0.04
WAITING_SHARE = 0.5
"""Of the deferrals; the others have been reviewed."""
TELEMETRY_WINDOWS = 90


def fill(plant: Plant, *, devices: int, decisions: int, span_ms: int, seed: int = 1) -> list[str]:
    """Enrol devices and give them decisions over the last `span_ms`; return the devices' names."""
    rng = random.Random(seed)
    now_ms = plant.clock.now_ms()
    body = plant.decision("box-x").model_dump_json()
    names = [f"box-{i:03d}" for i in range(devices)]
    each = decisions // devices
    for i, name in enumerate(names):
        plant.enrol(name, site=f"hall-{i % 3}")
        plant.report(name)
        values = [rng.random() for _ in range(40)]
        windows: list[AnyRow] = [
            plant.telemetry(name, {"brightness": histogram([0.3, 0.5, 0.7], values)}) for _ in range(TELEMETRY_WINDOWS)
        ]
        plant.up(name, windows)
        rows = [_row(name, seq, now_ms - span_ms * (each - seq) // each, body, rng) for seq in range(each)]
        places = ", ".join("?" * len(rows[0]))
        with plant.services.store.write() as connection:
            connection.exec_driver_sql(
                f"INSERT INTO decisions ({', '.join(rows[0])}) VALUES ({places})", [tuple(row.values()) for row in rows]
            )
    return names


def _row(device: str, seq: int, at_ms: int, body: str, rng: random.Random) -> dict[str, object]:
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
        "body": body,
    }
