"""A production line for tests: devices that speak the real messages to a real control plane's ingest, and a reviewer.

What is simulated is the devices' judgement; every row, report and answer takes the way that it takes in service.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import event

from cloud import tables
from cloud.conductor import Conductor
from cloud.config import CloudConfig, ServerConfig, StoreConfig
from cloud.ingest import Incoming
from cloud.rollout_book import RolloutBook
from cloud.server import Parts, build
from edge.wire.base import BundleRef
from edge.wire.messages import Health, Refusal, Reported, SlotReport, StationReport, Up
from edge.wire.rows import DecisionRow, InputRef, OutcomeRow
from edge.wire.topics import topic
from tests.clocks import HeldClock
from tests.cloud.blank import blank_sqlite

MODEL = "phone_glass"
PROBATION_S = 2


def ref(version: str, *, model: str = MODEL) -> BundleRef:
    """Return a bundle by name; its digest follows from name and version."""
    digest = hashlib.sha256(f"{model}-{version}".encode()).hexdigest()
    return BundleRef(name=model, version=version, digest=digest, size_bytes=1000)


OLD, GOOD, BAD = ref("1.0.0"), ref("1.1.0"), ref("1.2.0")


@dataclass
class Quality:
    """How often a version defers, and errs where it does not."""

    deferral: float = 0.1
    wrong: float = 0.02
    model_error: float = 0.0
    lost_action: float = 0.0


@dataclass
class Device:
    """One inspection box."""

    name: str
    site: str = "hall-1"
    online: bool = True
    refuses: str = ""
    crashes: bool = False
    serving: BundleRef = OLD
    config_version: int = 0
    slots: dict[str, SlotReport] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    trial_since_ms: int | None = None
    seq: int = 0
    unsent: list[DecisionRow | OutcomeRow] = field(default_factory=list)

    def put(self, bundle: BundleRef, state: str, now_ms: int, reason: str | None = None) -> None:
        slot = {"bundle": bundle, "state": state, "since_ms": now_ms, "reason": reason}
        self.slots[bundle.digest] = SlotReport.model_validate(slot)

    def state(self, bundle: BundleRef) -> str:
        return self.slots[bundle.digest].state if bundle.digest in self.slots else "empty"


class Line:
    """Devices, their control plane, and time."""

    def __init__(self, folder: Path, devices: list[Device], seed: int = 1) -> None:
        self.clock = HeldClock()
        self.config = CloudConfig(server=ServerConfig(port=0), store=StoreConfig(data_dir=folder))
        blank_sqlite(folder / "cloud.sqlite")
        self.open()
        self.rng = random.Random(seed)
        self.devices = devices
        self.qualities = {OLD.digest: Quality(), GOOD.digest: Quality(), BAD.digest: Quality(wrong=0.4)}
        self.truth: dict[tuple[str, int], str] = {}
        self.audit_share = 0.35
        self.rate = 9
        self.reviews_per_s = 20
        self.url = ""
        for bundle in (OLD, GOOD, BAD):
            self.publish(bundle)
        for device in devices:
            self.enrol(device)

    def open(self) -> None:
        """Build a control plane on the folder, as a new process would."""
        self.parts: Parts = build(self.config, self.clock)
        self.services = self.parts.services
        self.book = RolloutBook.of(self.services)
        self.conductor = Conductor(self.services)
        # No test here cuts the power: waiting for the disk at each of thousands of commits would be half its time.
        event.listen(self.services.store.engine, "connect", lambda c, _: c.execute("PRAGMA synchronous=OFF"))
        self.services.store.engine.dispose()

    def close(self) -> None:
        self.services.store.close()

    def enrol(self, device: Device) -> None:
        device.put(OLD, "good", self.clock.now_ms())
        row = {"device": device.name, "profile": "box", "site": device.site, "tags": [], "models": [MODEL]}
        secrets = {"public_key": "0" * 64, "token_digest": "0" * 64, "broker_password_hash": ""}
        with self.services.store.write() as connection:
            connection.execute(tables.devices.insert().values(**row, **secrets, enrolled_at_ms=self.clock.now_ms()))
        if device not in self.devices:
            self.devices.append(device)

    def publish(self, bundle: BundleRef, state: str = "audited") -> None:
        row = {**bundle.model_dump(), "manifest": {}, "published_at_ms": 0, "published_by": "test", "state": state}
        with self.services.store.write() as connection:
            connection.execute(tables.bundles.insert().values(**row))
        file = self.config.data_dir / "bundles" / bundle.digest[:2] / bundle.digest
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    def second(self) -> None:
        """Let one second pass: devices obey and decide, people review, the conductor looks."""
        self.clock.forward(1)
        incoming: list[Incoming] = []
        for device in self.devices:
            if device.online:
                self._obey(device)
            device.unsent += self._decide(device)
            if device.online:
                incoming += self._messages(device)
        self.parts.ingest.store_group(incoming)
        self._review()
        self.conductor.look()

    def until(self, there: Callable[[], bool], limit_s: int) -> int:
        """Let seconds pass until something is so; return how many it took."""
        for passed in range(1, limit_s + 1):
            self.second()
            if there():
                return passed
        raise AssertionError(f"not within {limit_s} s")

    def _obey(self, device: Device) -> None:
        desired = self.services.fleet.desired(device.name)
        bundles = desired.bundles.get(MODEL)
        now_ms = self.clock.now_ms()
        if bundles is not None:
            for wanted in (bundles.candidate, bundles.active):
                if wanted is not None and device.refuses and device.state(wanted) == "empty":
                    refusal = Refusal(bundle=wanted, at_ms=now_ms, reason=device.refuses)
                    device.refusals = [r for r in device.refusals if r.bundle != wanted] + [refusal]
                elif wanted is not None and device.state(wanted) == "empty":
                    device.put(wanted, "staged", now_ms)
            self._serve(device, bundles.active, now_ms)
        device.config_version = desired.config_version

    def _serve(self, device: Device, active: BundleRef | None, now_ms: int) -> None:
        if active is None:
            return
        if device.state(active) == "staged":
            device.put(active, "trial", now_ms)
            device.trial_since_ms = now_ms
            device.serving = active
        elif device.state(active) == "trial" and device.crashes:
            device.put(active, "bad", now_ms, "the model's process died")
            device.serving = OLD
        elif device.state(active) == "trial" and now_ms - (device.trial_since_ms or 0) >= 1000 * PROBATION_S:
            device.put(active, "good", now_ms)
        elif device.state(active) == "good":
            device.serving = active

    def _decide(self, device: Device) -> list[DecisionRow | OutcomeRow]:
        rows: list[DecisionRow | OutcomeRow] = []
        quality = self.qualities[device.serving.digest]
        for _ in range(self.rate):
            device.seq += 1
            truth = self.rng.choice(["pass", "divert"])
            wrong = self.rng.random() < quality.wrong
            broken = self.rng.random() < quality.model_error
            deferred = broken or self.rng.random() < quality.deferral
            verdict = "defer" if deferred else {"pass": "divert", "divert": "pass"}[truth] if wrong else truth
            audited = not deferred and self.rng.random() < self.audit_share
            reason = "model_error" if broken else "unsure" if deferred else "audit" if audited else None
            rows.append(decision(device, verdict, reason, self.clock.now_ms(), device.serving))
            self.truth[device.name, device.seq] = truth
            if not deferred:
                device.seq += 1
                lost = self.rng.random() < quality.lost_action
                state = "unknown" if lost else "done"
                rows.append(outcome(device, device.seq - 1, state, self.clock.now_ms()))
        return rows

    def _messages(self, device: Device) -> list[Incoming]:
        messages: list[Reported | Up] = [self._report(device)]
        if device.unsent:
            messages.append(Up(device=device.name, incarnation="one", rows=list(device.unsent)))
            device.unsent.clear()
        return [
            Incoming(topic(device.name, message.kind), message.model_dump_json().encode(), False, lambda: None)
            for message in messages
        ]

    def _report(self, device: Device) -> Reported:
        return Reported(
            device=device.name,
            incarnation="one",
            boot_id="boot",
            sent_at_ms=self.clock.now_ms(),
            config_version=device.config_version,
            software="test",
            profile="box",
            site=device.site,
            slots={MODEL: list(device.slots.values())},
            stations={"main": StationReport(model=MODEL, mode="partial", serving=device.serving)},
            refusals=device.refusals,
            health=Health(uptime_s=1, memory_bytes=1, disk_free_bytes=1, outbox_rows=0, outbox_bytes=0),
            interval_s=1,
        )

    def _review(self) -> None:
        for item in self.services.reviews.queue(last=self.reviews_per_s):
            answer = self.truth[item.device, item.seq]
            self.services.reviews.answer(item.device, item.incarnation, item.seq, answer=answer, reviewer="ann")


def decision(
    device: Device, verdict: str, reason: str | None, at_ms: int, bundle: BundleRef | None, *, total_ms: float = 5.0
) -> DecisionRow:
    """Return the decision with the device's present sequence number."""
    source = InputRef(
        source="folder", name="p.jpg", digest="c" * 64, media_type="image/jpeg", size_bytes=1, kept=reason is not None
    )
    fields = {
        "seq": device.seq,
        "station": "main",
        "at_ms": at_ms,
        "boot_id": "boot",
        "monotonic_ms": 1,
        "mode": "partial",
        "verdict": verdict,
        "action": "hand_over" if verdict == "defer" else verdict,
        "reason": reason,
        "audit_probability": 0.0 if verdict == "defer" else 0.35,
        "label": "good",
        "bundle": bundle,
        "input": source,
        "latency_ms": {"total": total_ms},
    }
    return DecisionRow.model_validate(fields)


def outcome(device: Device, decision_seq: int, state: str, at_ms: int) -> OutcomeRow:
    """Return what became of a decision's action."""
    fields = {"seq": device.seq, "decision_seq": decision_seq, "at_ms": at_ms, "state": state, "actuator": "log"}
    return OutcomeRow.model_validate(fields)
