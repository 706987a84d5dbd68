"""A simulated device that speaks the real contract over a real broker: outbox, acknowledgements, states, bundles.

Rules:
- Only `ack` frees a row. Without progress for `ACK_S` everything not stored is sent again, and the wait doubles up to
  `ACK_MAX_S`, as a real device does.
- What it does follows from its seed: rows, their moments, what it is unsure of.
- A desired bundle is reported as good at once: what is simulated is traffic, not models.
- paho is driven by the event loop of the whole fleet: thousands of devices are one thread.
"""

import asyncio
import hashlib
import random
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from pydantic_core import from_json, to_json

from edge.wire.rows import LATENCY_EDGES_MS, UNIT_EDGES
from edge.wire.topics import topic

KEEPALIVE_S = 60
ACK_S, ACK_MAX_S = 5.0, 120.0
WINDOW_BATCHES = 4
BATCH_ROWS = 50
BATCH_WINDOWS = 10
"""Of telemetry, which are several times as large."""
RECONNECT_S = 2.0
CONNECT_S = 30.0
DEFERRED = 0.02
"""Share of decisions that a person is asked about."""
LATENCIES, INPUT_METRICS, COUNTS = 6, 10, 8
"""What a window of telemetry of an inspection box holds: 16 histograms and 8 counts."""
METRICS_PER_WINDOW = LATENCIES + INPUT_METRICS + COUNTS
DIGEST = "ab" * 32


@dataclass
class Tally:
    """What a fleet did."""

    rows: int = 0
    messages: int = 0
    payload_bytes: int = 0
    resent: int = 0
    lost_connections: int = 0
    ack_s: list[float] = field(default_factory=list)
    """From sending a row to the word that it is stored; of every batch that was sent once."""


@dataclass(frozen=True)
class Site:
    """Where the broker is and how devices sign in."""

    host: str
    port: int
    password: str


class SimDevice:
    """One device."""

    def __init__(self, name: str, site: Site, seed: int, tally: Tally, *, model: str = "glass") -> None:
        self.name, self._site, self._tally, self._model = name, site, tally, model
        self.rng = random.Random(f"{seed}/{name}")  # noqa: S311  (a seeded behaviour is what is wanted)
        self.incarnation, self._boot = f"i-{seed}", f"b-{seed}"
        self.made, self.stored_through, self._sent_through, self._again_through = 0, 0, 0, 0
        self._outbox: deque[tuple[int, dict[str, Any]]] = deque()
        self._under_way: deque[tuple[int, float]] = deque()
        self._progress_s = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._client: mqtt.Client | None = None
        self._descriptor: int | None = None
        self._wait_s = ACK_S
        self._bundle: dict[str, Any] | None = None
        self._config_version = 0
        self._sum = hashlib.sha256()
        self.connected = False
        self.flood: str | None = None
        """Kind of rows of which it makes as many as are stored."""

    @property
    def waiting(self) -> int:
        """Rows that are not known to be stored."""
        return self.made - self.stored_through

    @property
    def decisions_sum(self) -> str:
        """SHA-256 of all its decisions as JSON, in order."""
        return self._sum.hexdigest()

    async def connect(self) -> None:
        """Connect; return when the subscriptions stand.

        Raises:
            OSError: that did not work.
        """
        self.drop()
        client = self._make_client()
        await asyncio.to_thread(client.connect, self._site.host, self._site.port, KEEPALIVE_S)
        socket = client.socket()
        if socket is None:
            raise OSError("the broker closed the connection")
        self._client, self._descriptor = client, socket.fileno()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        client.on_socket_close = lambda *_: self._forget_socket()
        client.on_socket_register_write = lambda *_: self._want_write()
        client.on_socket_unregister_write = lambda *_: self._stop_write()
        self._loop.add_reader(self._descriptor, self._read)
        if client.want_write():
            self._want_write()
        try:
            await asyncio.wait_for(self._ready, CONNECT_S)
        except TimeoutError as error:
            raise OSError("the broker does not answer") from error

    def make(self, kind: str, count: int = 1) -> None:
        """Make rows of this kind, to be sent."""
        for _ in range(count):
            self.made += 1
            row = decision(self.made, self.rng, self._bundle) if kind == "decision" else telemetry(self.made, self.rng)
            self._outbox.append((self.made, row))
            if kind == "decision":
                self._sum.update(to_json(row))
        self._tally.rows += count
        self.send()

    def send(self) -> None:
        """Send what the window allows."""
        while self.connected and len(self._under_way) < WINDOW_BATCHES:
            first = self._sent_through - self.stored_through
            rows = [row for _, row in _slice(self._outbox, first, BATCH_ROWS)]
            rows = rows if rows and rows[0]["kind"] == "decision" else rows[:BATCH_WINDOWS]
            if not rows:
                break
            self._sent_through += len(rows)
            if self._sent_through <= self._again_through:
                self._tally.resent += len(rows)
            payload = {"kind": "up", "device": self.name, "incarnation": self.incarnation, "rows": rows}
            self._under_way.append((self._sent_through, time.monotonic()))
            self._publish("up", payload)

    def tick(self, now_s: float) -> None:
        """Keep the connection alive, and send again what seems lost; called every second or so."""
        if self._client is not None and self._client.loop_misc() != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.drop()
        if self.connected and self._under_way and now_s - self._progress_s > self._wait_s:
            self._wait_s = min(2 * self._wait_s, ACK_MAX_S)
            self._begin_again()

    def report(self, interval_s: float) -> None:
        """Say the full state."""
        slots, stations = {}, {self._model: {"model": self._model, "mode": "partial", "serving": self._bundle}}
        if self._bundle is not None:
            slots = {self._model: [{"bundle": self._bundle, "state": "good", "since_ms": 1}]}
        health = {"uptime_s": 1.0, "memory_bytes": 1, "disk_free_bytes": 1, "outbox_rows": self.waiting}
        document = {
            "kind": "reported",
            "device": self.name,
            "incarnation": self.incarnation,
            "boot_id": self._boot,
            "sent_at_ms": now_ms(),
            "config_version": self._config_version,
            "software": "simulated",
            "profile": "inspection-box",
            "site": "bench",
            "slots": slots,
            "stations": stations,
            "health": {**health, "outbox_bytes": 0},
            "interval_s": interval_s,
        }
        self._publish("reported", document, retain=True)

    def drop(self) -> None:
        """Lose the connection without a word."""
        client, self._client = self._client, None
        self.connected = False
        if client is not None:
            client.on_disconnect = None
            socket = client.socket()
            self._forget_socket()
            if socket is not None:
                socket.close()

    def _make_client(self) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=self.name, clean_session=False, reconnect_on_failure=False
        )
        client.max_inflight_messages_set(200)
        client.username_pw_set(self.name, self._site.password)
        will = {"kind": "presence", "device": self.name, "boot_id": self._boot, "online": False, "at_ms": now_ms()}
        client.will_set(topic(self.name, "presence"), to_json(will), qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = lambda *_: self._lost()
        return client

    def _on_connect(self, client: mqtt.Client, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._ready.set_exception(OSError(f"the broker refused: {reason}"))
        else:
            client.subscribe([(topic(self.name, "desired"), 1), (topic(self.name, "ack"), 1)])

    def _on_subscribe(self, *_: Any) -> None:
        birth = {"kind": "presence", "device": self.name, "boot_id": self._boot, "online": True, "at_ms": now_ms()}
        self.connected = True
        self._publish("presence", birth, retain=True)
        self._begin_again()
        if not self._ready.done():
            self._ready.set_result(None)

    def _on_message(self, _client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        document = from_json(message.payload)
        if document["kind"] == "ack" and document["incarnation"] == self.incarnation:
            self._take_ack(document["stored_through"])
        elif document["kind"] == "desired" and document["config_version"] > self._config_version:
            self._config_version = document["config_version"]
            slots = document["bundles"].get(self._model) or {}
            self._bundle = slots.get("active") or self._bundle
            self.report(30.0)

    def _take_ack(self, through: int) -> None:
        now_s = time.monotonic()
        if through <= self.stored_through:
            return
        while self._outbox and self._outbox[0][0] <= through:
            self._outbox.popleft()
        while self._under_way and self._under_way[0][0] <= through:
            last, sent_s = self._under_way.popleft()
            if last > self._again_through:
                self._tally.ack_s.append(now_s - sent_s)
        self.stored_through, self._progress_s, self._wait_s = through, now_s, ACK_S
        self._sent_through = max(self._sent_through, through)
        size = BATCH_ROWS if self.flood == "decision" else BATCH_WINDOWS
        if self.flood is not None and self.waiting < WINDOW_BATCHES * size:
            self.make(self.flood, size)
        self.send()

    def _begin_again(self) -> None:
        self._again_through = max(self._again_through, self._sent_through)
        self._sent_through = self.stored_through
        self._under_way.clear()
        self._progress_s = time.monotonic()
        self.send()

    def _publish(self, channel: Any, document: dict[str, Any], *, retain: bool = False) -> None:
        if self._client is not None and self.connected:
            payload = to_json(document)
            self._tally.messages += 1
            self._tally.payload_bytes += len(payload)
            self._client.publish(topic(self.name, channel), payload, qos=1, retain=retain)

    def _lost(self) -> None:
        self._tally.lost_connections += self.connected
        self.drop()

    def _read(self) -> None:
        if self._client is not None and self._client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._lost()

    def _write(self) -> None:
        if self._client is not None and self._client.loop_write() != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._lost()

    def _want_write(self) -> None:
        if self._descriptor is not None:
            self._loop.add_writer(self._descriptor, self._write)

    def _stop_write(self) -> None:
        if self._descriptor is not None:
            self._loop.remove_writer(self._descriptor)

    def _forget_socket(self) -> None:
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
            self._descriptor = None


def decision(seq: int, rng: random.Random, bundle: dict[str, Any] | None) -> dict[str, Any]:
    """Return a decision of an inspection box, of about 900 bytes as JSON."""
    unsure = rng.random() < DEFERRED
    confidence = rng.uniform(0.5, 0.9) if unsure else rng.uniform(0.97, 1.0)
    verdict = "defer" if unsure else "pass"
    return {
        "kind": "decision",
        "seq": seq,
        "station": "glass",
        "at_ms": now_ms(),
        "boot_id": "b",
        "monotonic_ms": seq,
        "mode": "partial",
        "verdict": verdict,
        "action": "hand_over" if unsure else "pass",
        "reason": "unsure" if unsure else None,
        "audit_probability": 0.01,
        "label": "good",
        "confidence": confidence,
        "scores": {"good": confidence, "crack": (1 - confidence) / 2, "scratch": (1 - confidence) / 2},
        "bundle": bundle or {"name": "glass", "version": "1.0.0", "digest": DIGEST, "size_bytes": 100_000},
        "runtime": "onnx",
        "policy": {"defer_below": 0.93, "divert_above": 0.97},
        "input": {
            "source": "camera",
            "name": f"{seq}.jpg",
            "digest": f"{rng.getrandbits(256):064x}",
            "media_type": "image/jpeg",
            "size_bytes": 40_000,
            "kept": False,
        },
        "metrics": {"brightness": rng.random(), "contrast": rng.random(), "sharpness": rng.random()},
        "latency_ms": {"read": 1.2, "preprocess": 0.8, "infer": rng.uniform(4, 6), "decide": 0.1, "total": 8.0},
    }


def telemetry(seq: int, rng: random.Random) -> dict[str, Any]:
    """Return a window of a minute, with `METRICS_PER_WINDOW` metrics."""
    end_ms = now_ms()
    histograms = {f"latency_ms.step{i}": _histogram(LATENCY_EDGES_MS, rng) for i in range(LATENCIES)}
    histograms |= {f"metric{i}": _histogram(UNIT_EDGES, rng) for i in range(INPUT_METRICS)}
    return {
        "kind": "telemetry",
        "seq": seq,
        "station": "glass",
        "model": "glass",
        "bundle": {"name": "glass", "version": "1.0.0", "digest": DIGEST, "size_bytes": 100_000},
        "started_at_ms": end_ms - 60_000,
        "ended_at_ms": end_ms,
        "counts": {f"count{i}": rng.randrange(100) for i in range(COUNTS)},
        "histograms": histograms,
    }


def now_ms() -> int:
    """Return the wall clock."""
    return time.time_ns() // 1_000_000


def _histogram(edges: list[float], rng: random.Random) -> dict[str, Any]:
    counts = [0] * (len(edges) + 1)
    for _ in range(8):
        counts[rng.randrange(len(counts))] += rng.randrange(1, 20)
    return {"edges": edges, "counts": counts}


def _slice(rows: deque[tuple[int, dict[str, Any]]], first: int, count: int) -> list[tuple[int, dict[str, Any]]]:
    return [rows[place] for place in range(first, min(first + count, len(rows)))]
