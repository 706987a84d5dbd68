"""How long after failing evidence is the last device back on its old version, and how far apart do devices switch?

Rules:
- Control plane, broker and wire are the real ones (the embedded broker, ingest, the conductor at its own pace); the
  devices are simulated (`benchmarks.simfleet`) and answer at once, so what is measured is ours and the broker's.
- The plan is blue/green: all devices stage, all switch at once, all go back at once. The new version defers
  everything, and each device sends its first decisions as soon as it has switched.
- The clock starts when the first failing decision is sent. Going back must cost no download.
"""

import asyncio
import hashlib
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bcrypt
from sqlalchemy import select

from benchmarks.simfleet import SimDevice
from benchmarks.tables import print_table
from cloud import tables
from cloud.clock import SystemClock
from cloud.conductor import Conductor
from cloud.config import BrokerConfig, CloudConfig, ServerConfig, StoreConfig
from cloud.plans import parse_plan
from cloud.rollout_book import RolloutBook
from cloud.server import Parts, build
from edge.wire.base import BundleRef

DEVICES = 1000
CONNECTING_AT_ONCE = 50
DECISIONS = 5
LONGEST_S = 300.0
DECIDE_EVERY_S = 1.0
POLL_S = 0.02
MODEL = "glass"
PLAN = """
strategy = "blue_green"
[[stages]]
kind = "shadow"
min_s = 0
[[stages]]
kind = "switch"
min_s = 3600
max_s = 7200
[[stages.gates]]
metric = "deferral"
margin = 0.2
"""


@dataclass(frozen=True)
class Result:
    """One rollout and its way back."""

    devices: int
    staged_s: float
    """From the start of the rollout until every device has the bundle on disk."""
    switch_spread_s: float
    """From the first device's switch to the last one's."""
    decided_s: float
    """From the first failing decision sent until the control plane has taken the version back."""
    last_back_s: float
    """From the first failing decision sent until the last device serves the old version."""
    back_spread_s: float
    """From the first device's way back to the last one's."""
    downloads_to_go_back: int
    promise: str
    kept: str


def main(*, as_json: bool = False, devices: int = DEVICES) -> list[dict[str, Any]]:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="lineside-bench-") as folder:
        rows = [asdict(asyncio.run(_measure(Path(folder), devices)))]
    print_table("From failing evidence back to the old version, embedded broker", rows, as_json=as_json)
    return rows


async def _measure(folder: Path, count: int) -> Result:
    broker = BrokerConfig(port=0, tls=False)
    config = CloudConfig(server=ServerConfig(port=0), store=StoreConfig(data_dir=folder / "cloud"), broker=broker)
    parts = build(config, SystemClock())
    old, new = _bundle("1.0.0"), _bundle("1.1.0")
    password = secrets.token_urlsafe(16)
    names = [f"box-{i:05d}" for i in range(count)]
    _write_fleet(parts, names, password, (old, new))
    await parts.broker.start()
    tasks = [
        asyncio.create_task(task)
        for task in (
            parts.broker.run(),
            parts.link.run(parts.ingest.submit, lambda: None),
            parts.ingest.run(),
            Conductor(parts.services).run(),
        )
    ]
    _, port, _ = parts.broker.endpoint()
    devices = [SimDevice(name, password, port, MODEL, old) for name in names]
    try:
        await _until("the control plane's own link", lambda: parts.link.connected)
        return await _roll(parts, devices, old, new)
    finally:
        for device in devices:
            device.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await parts.broker.stop()
        parts.services.store.close()


async def _roll(parts: Parts, devices: list[SimDevice], old: BundleRef, new: BundleRef) -> Result:
    _say(f"connecting {len(devices)} devices")
    for start in range(0, len(devices), CONNECTING_AT_ONCE):
        await asyncio.gather(*(device.connect() for device in devices[start : start + CONNECTING_AT_ONCE]))
    for device in devices:
        device.decide(["pass"] * DECISIONS)
    await _until("the old version's decisions", lambda: _stored(parts) >= DECISIONS * len(devices))
    book = RolloutBook.of(parts.services)
    sent_s: list[float] = []

    def fail(device: SimDevice) -> None:
        if device.serving == new:
            sent_s.append(time.monotonic())
            device.decide(["defer"] * DECISIONS)

    for device in devices:
        device.on_switch = fail
    began_s = time.monotonic()
    rollout = book.start(MODEL, new.version, parse_plan(PLAN), who="benchmark", unaudited="a benchmark").id
    _say("staging everywhere")
    await _until("every device to hold it", lambda: all(new.digest in device.slots for device in devices))
    staged_s = time.monotonic() - began_s
    _say("waiting for the switch, and for the way back")
    await _until("a device to switch", lambda: bool(sent_s))
    failing = asyncio.create_task(_go_on_failing(devices, new))
    try:
        await _until("the way back", lambda: _status(parts, rollout) == "rolled_back")
        decided_s = time.monotonic()
        await _until("every device to be back", lambda: all(device.serving == old for device in devices))
    finally:
        failing.cancel()
    switched = [device.served_since_s[new.digest] for device in devices if new.digest in device.served_since_s]
    back = [device.served_since_s[old.digest] for device in devices if old.digest in device.served_since_s]
    last_s = max(back) - min(sent_s)
    return Result(
        devices=len(devices),
        staged_s=staged_s,
        switch_spread_s=max(switched) - min(switched),
        decided_s=decided_s - min(sent_s),
        last_back_s=last_s,
        back_spread_s=max(back) - min(back),
        downloads_to_go_back=sum(device.fetched for device in devices) - len(devices),
        promise="≤ 10 s",
        kept="yes" if last_s <= 10.0 else "NO",
    )


async def _go_on_failing(devices: list[SimDevice], new: BundleRef) -> None:
    """Let devices decide as a line does that runs; what they said as they switched may be too early to count."""
    while True:
        await asyncio.sleep(DECIDE_EVERY_S)
        for device in devices:
            if device.serving == new:
                device.decide(["defer"] * DECISIONS)


def _write_fleet(parts: Parts, names: list[str], password: str, bundles: tuple[BundleRef, ...]) -> None:
    """Write devices and bundles as enrolment and publishing leave them."""
    now_ms = parts.services.clock.now_ms()
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    row = {"profile": "box", "site": "hall-1", "tags": [], "models": [MODEL], "enrolled_at_ms": now_ms}
    keys = {"public_key": "0" * 64, "token_digest": "0" * 64, "broker_password_hash": hashed}
    published = {"manifest": {}, "published_at_ms": now_ms, "published_by": "benchmark"}
    for bundle in bundles:
        parts.services.registry.blobs.put(bundle.version.encode(), digest=bundle.digest)
    with parts.services.store.write() as connection:
        connection.execute(tables.devices.insert(), [{"device": name, **row, **keys} for name in names])
        for bundle in bundles:
            connection.execute(tables.bundles.insert().values(**bundle.model_dump(), **published, state="candidate"))


def _stored(parts: Parts) -> int:
    with parts.services.store.read() as connection:
        return sum(connection.execute(select(tables.streams.c.stored_through)).scalars())


def _status(parts: Parts, rollout: str) -> str | None:
    with parts.services.store.read() as connection:
        return connection.execute(select(tables.rollouts.c.status).where(tables.rollouts.c.id == rollout)).scalar()


def _bundle(version: str) -> BundleRef:
    """Name a bundle whose file holds its version and nothing else: simulated devices load none."""
    content = version.encode()
    digest = hashlib.sha256(content).hexdigest()
    return BundleRef(name=MODEL, version=version, digest=digest, size_bytes=len(content))


async def _until(what: str, there: Callable[[], bool]) -> None:
    until_s = time.monotonic() + LONGEST_S
    while not there():
        if time.monotonic() > until_s:
            raise TimeoutError(f"waited {LONGEST_S:.0f} s for {what}")
        await asyncio.sleep(POLL_S)


def _say(what: str) -> None:
    sys.stderr.write(f"{what}\n")
