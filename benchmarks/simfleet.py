"""Simulated devices that speak the real wire to a real broker, thousands in one process, on one event loop.

Rules:
- A device is small: MQTT 3.1.1 over asyncio with QoS 1, of it only what a device needs. paho's client would need two
  sockets and three kilobytes of state more for each, and its callbacks half the processor time of what is measured.
- What goes over the wire are the contract's own messages; what is simulated is the judgement, the download and the
  probation. `fetched` counts downloads: going back must cost none.
- Moments are kept of when a device began to serve a version, by the monotonic clock of this process.

A device: `SimDevice(name, password, port, model, serving)`, then `await device.connect()`; it obeys what is desired.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from edge.wire.base import BundleRef
from edge.wire.messages import Desired, Health, Reported, SlotReport, StationReport, Up
from edge.wire.rows import DecisionRow, InputRef, Row
from edge.wire.topics import topic

KEEPALIVE_S = 600
CONNECT_TIMEOUT_S = 120.0
CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90
"""First bytes of MQTT 3.1.1's packets, section 2.2 of the standard."""


class Mqtt(asyncio.Protocol):
    """One MQTT 3.1.1 connection with QoS 1: connect, subscribe, publish, take what comes."""

    def __init__(self, name: str, password: str, take: Callable[[str, bytes], None]) -> None:
        self._name, self._password, self._take = name, password, take
        self._buffer = b""
        self._number = 0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        clean_with_login = 0b1100_0010
        head = _text("MQTT") + bytes([4, clean_with_login]) + KEEPALIVE_S.to_bytes(2, "big")
        self._send(CONNECT, head + _text(self._name) + _text(self._name) + _text(self._password))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for kind, body in self._packets():
            self._packet(kind, body)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(OSError(f"{self._name}: the broker closed the connection: {exc}"))

    def publish(self, name: str, payload: bytes, *, retain: bool = False) -> None:
        """Send a message with QoS 1."""
        self._number = self._number % 65_535 + 1
        self._send(PUBLISH | 0x02 | retain, _text(name) + self._number.to_bytes(2, "big") + payload)

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    def _packet(self, kind: int, body: bytes) -> None:
        if kind == CONNACK and body[1] == 0:
            filters = b"".join(_text(topic(self._name, channel)) + b"\x01" for channel in ("desired", "ack"))
            self._send(SUBSCRIBE, b"\x00\x01" + filters)
        elif kind == CONNACK:
            self.ready.set_exception(OSError(f"{self._name}: the broker refused with {body[1]}"))
        elif kind == SUBACK and not self.ready.done():
            if any(granted & 0x80 for granted in body[2:]):
                self.ready.set_exception(OSError(f"{self._name}: the broker refused a subscription"))
            else:
                self.ready.set_result(None)
        elif kind & 0xF0 == PUBLISH:
            end = 2 + int.from_bytes(body[:2], "big")
            sure = kind & 0x06
            if sure:
                self._send(PUBACK, body[end : end + 2])
            self._take(body[2:end].decode(), body[end + 2 * bool(sure) :])

    def _packets(self) -> Iterator[tuple[int, bytes]]:
        """Give the whole packets that have come; what is left waits for the rest."""
        while len(self._buffer) >= 2:
            size, shift, at = 0, 0, 1
            while True:
                if at >= len(self._buffer):
                    return
                byte = self._buffer[at]
                size, shift, at = size | (byte & 0x7F) << shift, shift + 7, at + 1
                if byte < 0x80:
                    break
            if len(self._buffer) < at + size:
                return
            packet = self._buffer[0], self._buffer[at : at + size]
            self._buffer = self._buffer[at + size :]
            yield packet

    def _send(self, kind: int, body: bytes) -> None:
        size, left = b"", len(body)
        while True:
            left, digit = left >> 7, left & 0x7F
            size += bytes([digit | 0x80 * (left > 0)])
            if not left:
                break
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(bytes([kind]) + size + body)


@dataclass
class SimDevice:
    """One device: obeys what is desired, reports, and decides when it is told to."""

    name: str
    password: str
    port: int
    model: str
    serving: BundleRef
    site: str = "hall-1"
    profile: str = "box"
    probation_s: float = 0.5
    slots: dict[str, SlotReport] = field(default_factory=dict)
    served_since_s: dict[str, float] = field(default_factory=dict)
    """Digest → when it last began to serve it."""
    fetched: int = 0
    config_version: int = 0
    seq: int = 0
    mqtt: Mqtt | None = None
    on_switch: Callable[["SimDevice"], None] = lambda _device: None

    async def connect(self) -> None:
        """Connect, subscribe, and tell what it runs.

        Raises:
            OSError, TimeoutError: that did not work.
        """
        self._put(self.serving, "good")
        loop = asyncio.get_running_loop()
        _, self.mqtt = await loop.create_connection(
            lambda: Mqtt(self.name, self.password, self._take), "127.0.0.1", self.port
        )
        await asyncio.wait_for(self.mqtt.ready, CONNECT_TIMEOUT_S)
        self.report()

    def close(self) -> None:
        """End the connection."""
        if self.mqtt is not None:
            self.mqtt.close()

    def decide(self, verdicts: list[str]) -> None:
        """Send a batch of decisions by the version that serves."""
        rows: list[Row] = [self._decision(verdict) for verdict in verdicts]
        self._say(Up.model_construct(kind="up", device=self.name, incarnation="one", rows=rows))

    def report(self) -> None:
        """Send the full state."""
        health = Health(uptime_s=1, memory_bytes=1, disk_free_bytes=1, outbox_rows=0, outbox_bytes=0)
        self._say(
            Reported(
                device=self.name,
                incarnation="one",
                boot_id="boot",
                sent_at_ms=_now_ms(),
                config_version=self.config_version,
                software="simulated",
                profile=self.profile,
                site=self.site,
                slots={self.model: list(self.slots.values())},
                stations={"main": StationReport(model=self.model, mode="partial", serving=self.serving)},
                health=health,
                interval_s=600,
            )
        )

    def _take(self, name: str, payload: bytes) -> None:
        if not name.endswith("/desired"):
            return
        desired = Desired.model_validate_json(payload)
        bundles = desired.bundles.get(self.model)
        if desired.config_version < self.config_version or bundles is None:
            return
        self.config_version = desired.config_version
        for wanted in (bundles.candidate, bundles.active):
            if wanted is not None and wanted.digest not in self.slots:
                self.fetched += 1
                self._put(wanted, "staged")
        if bundles.active is not None and bundles.active != self.serving:
            self._switch(bundles.active)
        self.report()

    def _switch(self, bundle: BundleRef) -> None:
        self.serving = bundle
        self.served_since_s[bundle.digest] = time.monotonic()
        if self.slots[bundle.digest].state == "staged":
            self._put(bundle, "trial")
            asyncio.get_running_loop().call_later(self.probation_s, self._prove, bundle)
        self.on_switch(self)

    def _prove(self, bundle: BundleRef) -> None:
        if self.serving == bundle:
            self._put(bundle, "good")
            self.report()

    def _put(self, bundle: BundleRef, state: Any) -> None:
        self.slots[bundle.digest] = SlotReport(bundle=bundle, state=state, since_ms=_now_ms())

    def _decision(self, verdict: str) -> DecisionRow:
        self.seq += 1
        source = InputRef(
            source="folder", name="p.jpg", digest="c" * 64, media_type="image/jpeg", size_bytes=1, kept=False
        )
        fields = {
            "seq": self.seq,
            "station": "main",
            "at_ms": _now_ms(),
            "boot_id": "boot",
            "monotonic_ms": 1,
            "mode": "partial",
            "verdict": verdict,
            "action": "hand_over" if verdict == "defer" else verdict,
            "reason": "unsure" if verdict == "defer" else None,
            "bundle": self.serving,
            "input": source,
            "latency_ms": {"total": 5.0},
        }
        return DecisionRow.model_validate(fields)

    def _say(self, message: Reported | Up) -> None:
        if self.mqtt is not None:
            name = topic(self.name, message.kind)
            self.mqtt.publish(name, message.model_dump_json().encode(), retain=message.kind == "reported")


def _text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
