"""Control planes with their brokers for the contract's tests: embedded nats-server, or a Mosquitto on our files."""

import asyncio
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as mqtt
import uvicorn
from paho.mqtt.enums import CallbackAPIVersion

from cloud.app import DeviceDoor, create_app
from cloud.broker import Broker, EmbeddedBroker
from cloud.config import BrokerConfig
from cloud.server import Parts, _listen
from edge.clock import SystemClock
from edge.enrol import enrol
from edge.identity import Identity
from edge.wire.http import EnrolAnswer
from edge.wire.messages import Ack, Desired, Presence
from edge.wire.topics import topic
from tests.brokers import find_binary, free_port
from tests.clocks import HeldClock
from tests.cloud.world import World, device_context
from tests.waiting import until, wait_until

WAIT_S = 40.0
Credential = Literal["certificate", "password"]


class Mosquitto:
    """A Mosquitto that runs on the files that the control plane keeps for it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.files = folder / "files"
        self._folder = folder
        folder.mkdir(parents=True)
        self._binary = find_binary("mosquitto")
        self._process: subprocess.Popen[bytes] | None = None

    def settings(self, credential: Credential) -> BrokerConfig:
        """Return the control plane's settings for it."""
        (self._folder / "password").write_text("the control plane's own")
        return BrokerConfig(
            kind="external",
            port=self.port,
            listen_host="127.0.0.1",
            credential=credential,
            password_file=self._folder / "password",
            accounts_dir=self.files,
            reload_command=("sh", "-c", f"test ! -e {self._folder}/pid || kill -HUP $(cat {self._folder}/pid)"),
        )

    def start(self) -> None:
        """Start it on the files as they are."""
        config = self._folder / "mosquitto.conf"
        config.write_text(f"pid_file {self._folder}/pid\nuser root\nlog_type all\ninclude_dir {self.files}\n")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([self._binary, "-c", str(config)], stdout=log, stderr=log)

    def readings(self) -> int:
        """Return how often it has read its files again."""
        return (self._folder / "log").read_text(errors="replace").count("Reloading config")

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            (self._folder / "pid").unlink(missing_ok=True)


class Site:
    """A control plane with its broker: real link, real ingest."""

    def __init__(self, world: World, broker: Broker, parts: Parts, mosquitto: Mosquitto | None) -> None:
        self.world = world
        self.broker = broker
        self.parts = parts
        self.mosquitto = mosquitto

    @property
    def broker_files(self) -> Path:
        """Where an external broker's files are kept."""
        assert self.mosquitto is not None
        return self.mosquitto.files

    async def enrol(self, name: str) -> EnrolAnswer:
        """Take a device in, and return when the broker knows it."""
        mosquitto = self.mosquitto
        before = mosquitto.readings() if mosquitto is not None else 0
        answer = await asyncio.to_thread(self.world.enrol, name)
        tls = device_context(answer)
        if mosquitto is not None:
            await until(lambda: mosquitto.readings() > before, WAIT_S, "the broker to read its files")
        await until(lambda: is_let_in(answer, tls), WAIT_S, f"the broker to know {name}")
        return answer

    async def revoke(self, name: str) -> None:
        """Put a device out."""
        await asyncio.to_thread(self.world.services.enrolment.revoke, name, who="test")

    async def break_broker(self) -> None:
        """Kill the broker; it is started again by whoever keeps it."""
        if isinstance(self.broker, EmbeddedBroker):
            assert self.broker.pid is not None
            subprocess.run(["kill", "-9", str(self.broker.pid)], check=True)
        elif self.mosquitto is not None:
            self.mosquitto.stop()
            self.mosquitto.start()


class Device:
    """One MQTT client as a device would be."""

    def __init__(self, answer: EnrolAnswer, *, boot_id: str = "b1", client_id: str | None = None) -> None:
        self.name = answer.device
        self.lost = False
        self.received: list[tuple[str, bytes]] = []
        self.granted: list[bool] = []
        self.answer = answer
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or answer.device,
            clean_session=False,
            protocol=mqtt.MQTTv311,
        )
        prove(self.client, answer)
        will = Presence(device=self.name, boot_id=boot_id, online=False, at_ms=1)
        self.client.will_set(topic(self.name, "presence"), will.model_dump_json(), qos=1, retain=True)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = self._connected
        self.client.on_disconnect = lambda *_: setattr(self, "lost", True)
        self.client.on_message = lambda _c, _u, message: self.received.append((message.topic, bytes(message.payload)))
        self.client.on_subscribe = lambda _c, _u, _m, codes, _p: self.granted.extend(not c.is_failure for c in codes)

    def __enter__(self) -> "Device":
        broker = self.answer.broker
        self.client.connect_async(broker.host, broker.port, keepalive=10)
        self.client.loop_start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def say(self, channel: Any, payload: str | bytes, *, retain: bool = False, device: str | None = None) -> None:
        """Publish on one of its topics, or on another device's."""
        self.client.publish(topic(device or self.name, channel), payload, qos=1, retain=retain)

    def acked(self) -> int:
        """Return how far the control plane has said it has stored."""
        acks = [Ack.model_validate_json(payload) for name, payload in self.received if name.endswith("/ack")]
        return max((ack.stored_through for ack in acks), default=0)

    def desired(self) -> list[int]:
        """Return the versions of the desired states that came."""
        found = [Desired.model_validate_json(payload) for name, payload in self.received if name.endswith("/desired")]
        return [document.config_version for document in found]

    def cut(self) -> None:
        """Lose the connection without a word."""
        self.client.loop_stop()
        socket: Any = self.client.socket()
        if socket is not None:
            socket.close()

    def _connected(self, client: mqtt.Client, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not reason.is_failure:
            client.subscribe([(topic(self.name, "desired"), 1), (topic(self.name, "ack"), 1)])


@asynccontextmanager
async def site(
    kind: str, folder: Path, credential: Credential = "certificate", *, days_ago: int = 0
) -> AsyncIterator[Site]:
    """Run broker, link and ingest; `days_ago` is when it was set up, by its own clock."""
    clock = HeldClock(time.time_ns() // 1_000_000 - days_ago * 86_400_000)
    mosquitto = Mosquitto(folder / "mosquitto") if kind == "mosquitto" else None
    config = BrokerConfig(port=0, credential=credential) if mosquitto is None else mosquitto.settings(credential)
    world = World(folder, broker=config, clock=clock)
    parts, broker = world.parts, world.parts.broker
    await broker.start()
    if mosquitto is not None:
        mosquitto.start()
    tasks = [
        asyncio.create_task(broker.run()),
        asyncio.create_task(
            parts.link.run(parts.ingest.submit, lambda: print("published", parts.services.fleet.republish_all()))
        ),
        asyncio.create_task(parts.ingest.run()),
    ]
    try:
        await until(lambda: parts.link.connected, WAIT_S, "the link")
        yield Site(world, broker, parts, mosquitto)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await broker.stop()
        if mosquitto is not None:
            mosquitto.stop()
        world.close()


@contextmanager
def served(world: World, host: str = "127.0.0.1") -> Iterator[str]:
    """Have a control plane reached by devices, by HTTPS; gives its address."""
    context = world.services.security.server_context()
    app = DeviceDoor(create_app(world.services))
    config = uvicorn.Config(app, lifespan="off", log_config=None, ssl_context_factory=lambda *_: context)
    server, listener = uvicorn.Server(config), _listen(host, 0, "test")
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="https", daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, 10, "the control plane")
        yield f"https://{host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


def ask(url: str, claim: str, folder: Path, device: str, **options: Any) -> Identity:
    """Enrol as the daemon does."""
    rest: dict[str, Any] = {"profile": "generic", "site": "hall-1", "models": ["brightness"], "clock": SystemClock()}
    return enrol(url, device, claim, identity_dir=folder, **rest, **options)


def prove(client: mqtt.Client, answer: EnrolAnswer) -> None:
    """Have a client sign in as an enrolled device does."""
    tls = device_context(answer)
    if tls is not None:
        client.tls_set_context(tls)
    if answer.broker.username:
        client.username_pw_set(answer.broker.username, answer.broker.password)


def is_let_in(answer: EnrolAnswer, tls: ssl.SSLContext | None) -> bool:
    """Return whether the broker takes an enrolled device's credential."""
    broker = answer.broker
    fields = [b"probe-" + answer.device.encode(), *(x.encode() for x in (broker.username, broker.password) if x)]
    flags = 0b1100_0010 if broker.username else 0b10
    body = b"\x00\x04MQTT\x04" + bytes([flags]) + b"\x00\x0a"
    body += b"".join(len(field).to_bytes(2, "big") + field for field in fields)
    try:
        plain = socket.create_connection((broker.host, broker.port), 5)
        with tls.wrap_socket(plain, server_hostname=broker.host) if tls else plain as line:
            line.sendall(b"\x10" + bytes([len(body)]) + body)
            return line.recv(4) == b"\x20\x02\x00\x00"
    except OSError:
        return False
