"""A control plane filled by hand: real store, real ingest and the real application, without broker and devices.

What devices would send is built from the contract's own classes and goes through ingest, so rows and documents are
exactly as in service. Only what other parts of the control plane decide (bundles, rollouts) is put into the tables.
"""

import hashlib
import itertools
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from cloud import tables
from cloud.app import create_app
from cloud.clock import Clock
from cloud.config import CloudConfig, ServerConfig, StoreConfig
from cloud.ingest import Incoming
from cloud.plans import Plan
from cloud.rollout_state import RolloutState
from cloud.server import build
from cloud.store import insert_ignore
from edge.wire.base import BundleRef
from edge.wire.messages import Health, Presence, Reported, Up
from edge.wire.rows import DecisionRow, EventRow, Histogram, InputRef, OutcomeRow, TelemetryRow
from edge.wire.topics import topic
from tests.cloud.blank import blank_sqlite

INTERVAL_S = 5.0
HEALTH = Health(uptime_s=5400, memory_bytes=92_000_000, disk_free_bytes=21 * 10**9, outbox_rows=0, outbox_bytes=0)
LABELS = ["good", "scratch", "crack", "dent", "pit_mark", "discoloration"]
AnyRow = DecisionRow | EventRow | OutcomeRow | TelemetryRow


def digest_of(data: bytes | str) -> str:
    """Return the SHA-256 of bytes or text in hexadecimal."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def ref(name: str = "phone_glass", version: str = "1.0.0") -> BundleRef:
    """Return a bundle's reference; its digest follows from name and version."""
    return BundleRef(name=name, version=version, digest=digest_of(f"{name}-{version}"), size_bytes=412_345)


def histogram(edges: list[float], values: list[float]) -> Histogram:
    """Return the histogram of values over edges."""
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[sum(value >= edge for edge in edges)] += 1
    return Histogram(edges=edges, counts=counts)


class Plant:
    """A control plane in a folder."""

    def __init__(self, folder: Path, clock: Clock, *, token_file: Path | None = None) -> None:
        server = ServerConfig(port=0, operator_token_file=token_file)
        config = CloudConfig(store=StoreConfig(data_dir=folder), server=server)
        blank_sqlite(folder / "cloud.sqlite")
        parts = build(config, clock)
        self.clock = clock
        self.services = parts.services
        self._ingest = parts.ingest
        self._seqs: dict[str, Any] = {}

    def app(self) -> FastAPI:
        """Return the application over this plant."""
        return create_app(self.services)

    def close(self) -> None:
        """Close the database."""
        self.services.store.close()

    def enrol(
        self, device: str, *, site: str = "hall-1", profile: str = "box", models: list[str] | None = None
    ) -> None:
        """Make a device part of the fleet."""
        row = {
            "device": device,
            "profile": profile,
            "site": site,
            "tags": [],
            "models": models or ["phone_glass"],
            "public_key": digest_of(device),
            "token_digest": digest_of(device + "-token"),
            "broker_password_hash": "-",
            "enrolled_at_ms": self.clock.now_ms(),
        }
        with self.services.store.write() as connection:
            connection.execute(tables.devices.insert().values(**row))

    def report(self, device: str, **changes: Any) -> None:
        """Let a device send its full state; `changes` replace parts of it."""
        fields: dict[str, Any] = {
            "device": device,
            "incarnation": f"{device}-1",
            "boot_id": "boot-1",
            "sent_at_ms": self.clock.now_ms(),
            "config_version": 1,
            "software": "lineside 0.1.0",
            "profile": "box",
            "site": "hall-1",
            "health": HEALTH,
            "interval_s": INTERVAL_S,
        }
        self._hear(device, "reported", Reported(**{**fields, **changes}).model_dump_json().encode())

    def presence(self, device: str, *, online: bool, boot_id: str = "boot-1") -> None:
        """Let a device come, or its last will be told."""
        message = Presence(device=device, boot_id=boot_id, online=online, at_ms=self.clock.now_ms())
        self._hear(device, "presence", message.model_dump_json().encode())

    def up(self, device: str, rows: list[AnyRow]) -> None:
        """Let a device send rows."""
        for start in range(0, len(rows), 500):
            batch = Up(device=device, incarnation=f"{device}-1", rows=rows[start : start + 500])
            self._hear(device, "up", batch.model_dump_json().encode())

    def seq(self, device: str) -> int:
        """Return the device's next sequence number."""
        return int(next(self._seqs.setdefault(device, itertools.count(1))))

    def decision(self, device: str, **changes: Any) -> DecisionRow:
        """Return a decision of a device, not sent yet; a pass unless `changes` say otherwise."""
        seq = self.seq(device)
        fields: dict[str, Any] = {
            "seq": seq,
            "station": "belt",
            "at_ms": self.clock.now_ms(),
            "boot_id": "boot-1",
            "monotonic_ms": seq * 100,
            "mode": "partial",
            "verdict": "pass",
            "action": "pass",
            "label": "good",
            "confidence": 0.98,
            "scores": {"good": 0.98, "scratch": 0.02},
            "bundle": ref(),
            "runtime": "onnx",
            "policy": {"pass_max": 0.1, "divert_min": 0.9},
            "input": self.input_ref(f"{device}-{seq}"),
            "metrics": {"brightness": 0.5},
            "latency_ms": {"infer": 2.1, "total": 3.4},
        }
        return DecisionRow(**{**fields, **changes})

    def deferral(self, device: str, **changes: Any) -> DecisionRow:
        """Return a deferral of a device, not sent yet."""
        unsure = {"verdict": "defer", "action": "hand_over", "reason": "unsure", "label": "scratch", "confidence": 0.55}
        return self.decision(device, **{**unsure, "scores": {"good": 0.45, "scratch": 0.55}, **changes})

    def event(self, device: str, name: str, severity: str = "info", **changes: Any) -> EventRow:
        """Return an event of a device, not sent yet."""
        fields = {"seq": self.seq(device), "at_ms": self.clock.now_ms(), "boot_id": "boot-1"}
        return EventRow(**{**fields, "name": name, "severity": severity, **changes})

    def telemetry(self, device: str, histograms: dict[str, Histogram], **changes: Any) -> TelemetryRow:
        """Return a window of a device, not sent yet."""
        now_ms = self.clock.now_ms()
        fields: dict[str, Any] = {
            "seq": self.seq(device),
            "station": "belt",
            "model": "phone_glass",
            "bundle": ref(),
            "started_at_ms": now_ms - 10_000,
            "ended_at_ms": now_ms,
            "histograms": histograms,
        }
        return TelemetryRow(**{**fields, **changes})

    def input_ref(self, name: str, data: bytes | None = None, media_type: str = "image/jpeg") -> InputRef:
        """Return the reference of an input; with its bytes it has arrived here, too."""
        digest = digest_of(data if data is not None else name)
        return InputRef(
            source="folder", name=name, digest=digest, media_type=media_type, size_bytes=len(data or b""), kept=True
        )

    def arrive(self, device: str, data: bytes, media_type: str = "image/jpeg") -> None:
        """Keep the bytes of an input, as if a device had sent them."""
        digest = digest_of(data)
        self.services.inputs.put(data, digest=digest)
        row = {"digest": digest, "media_type": media_type, "size_bytes": len(data), "device": device}
        with self.services.store.write() as connection:
            insert_ignore(connection, tables.inputs, [{**row, "received_at_ms": self.clock.now_ms()}])

    def bundle(self, bundle: BundleRef, *, state: str = "approved", **manifest: Any) -> None:
        """Put a bundle into the registry's table; `manifest` replaces parts of a plausible one."""
        document = {
            "format": 1,
            "name": bundle.name,
            "version": bundle.version,
            "task": "inspect",
            "description": "Back glass of phones",
            "created_at": "2026-11-20T09:12:44Z",
            "labels": LABELS,
            "models": {name: {"runtime": name, "precision": "int8"} for name in ("onnx", "tflite")},
            "policy": {"kind": "inspect", "pass_max": 0.0831, "divert_min": 0.9127},
            **manifest,
        }
        row = {
            "digest": bundle.digest,
            "name": bundle.name,
            "version": bundle.version,
            "size_bytes": bundle.size_bytes,
            "manifest": document,
            "published_at_ms": self.clock.now_ms(),
            "published_by": "operator",
            "state": state,
        }
        with self.services.store.write() as connection:
            connection.execute(tables.bundles.insert().values(**row))
        file = self.services.registry.blobs.folder / bundle.digest[:2] / bundle.digest
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    def rollout(self, plan: Plan, state: RolloutState, log: list[tuple[int, str, str]] | None = None) -> None:
        """Put a rollout into the tables, with lines (at_ms, step, reason) of its log."""
        row = {
            "id": state.rollout,
            "model": plan.model,
            "version": plan.version,
            "digest": plan.digest,
            "status": state.status,
            "plan": plan.model_dump(mode="json"),
            "state": state.model_dump(mode="json"),
            "created_at_ms": state.started_at_ms,
            "created_by": "operator",
            "updated_at_ms": self.clock.now_ms(),
        }
        with self.services.store.write() as connection:
            connection.execute(tables.rollouts.insert().values(**row))
            for at_ms, step, reason in log or []:
                line = {"rollout": state.rollout, "at_ms": at_ms, "step": step, "reason": reason, "data": {}}
                connection.execute(tables.rollout_log.insert().values(**line))

    def _hear(self, device: str, channel: Any, payload: bytes) -> None:
        message = Incoming(topic(device, channel), payload, retained=False, release=lambda: None)
        self._ingest.store_group([message])
