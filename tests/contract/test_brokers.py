"""The contract over real brokers: the embedded nats-server, and a Mosquitto on the files that the control plane keeps."""

import asyncio
import contextlib
import functools
import random
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from sqlalchemy import select

from cloud import tables
from cloud.broker import Broker, EmbeddedBroker, ExternalBroker
from cloud.clock import SystemClock
from cloud.config import BrokerConfig, CloudConfig, ServerConfig, StoreConfig
from cloud.link import Link
from cloud.server import Parts, build
from edge.wire.base import BundleRef
from edge.wire.http import EnrolAnswer
from edge.wire.messages import Ack, Desired, DesiredBundles, Presence
from edge.wire.topics import topic
from tests.brokers import find_binary, free_port
from tests.clocks import HeldClock
from tests.cloud.world import World, decision, device_context, event, reported, up
from tests.waiting import until

WAIT_S = 40.0
Credential = Literal["certificate", "password"]
REF = BundleRef(name="brightness", version="1.0.0", digest="ab" * 32, size_bytes=3)


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

    def knows(self, text: str) -> bool:
        """Return whether it has read rights that hold this text."""
        rights = self.files / "acl_file"
        log = (self._folder / "log").read_text(errors="replace")
        read_at = [float(line.split(":")[0]) for line in log.splitlines() if "Reloading config" in line]
        return text in rights.read_text() and any(at >= int(rights.stat().st_mtime) for at in read_at)

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

    async def enrol(self, name: str) -> EnrolAnswer:
        """Take a device in, and return when the broker knows it."""
        answer = await asyncio.to_thread(self.world.enrol, name)
        tls = device_context(answer)
        await until(lambda: _is_let_in(answer, tls), WAIT_S, f"the broker to know {name}")
        mosquitto = self.mosquitto
        if mosquitto is not None:
            await until(lambda: mosquitto.knows(f"user {name}\n"), WAIT_S, f"the broker to know {name}'s rights")
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
        _prove(self.client, answer)
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


@pytest.fixture(params=["nats", "mosquitto"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which broker."""
    name: str = request.param
    find_binary(name)  # skips with a sentence where it is not installed
    return name


@pytest.fixture
def anyio_backend() -> str:
    """The control plane runs in asyncio."""
    return "asyncio"


@asynccontextmanager
async def site(kind: str, folder: Path, credential: Credential = "certificate") -> AsyncIterator[Site]:
    """Run broker, link and ingest."""
    mosquitto = Mosquitto(folder / "mosquitto") if kind == "mosquitto" else None
    config = BrokerConfig(port=0, credential=credential) if mosquitto is None else mosquitto.settings(credential)
    world = World(folder, broker=config, clock=HeldClock(time.time_ns() // 1_000_000))
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


@pytest.mark.anyio
async def test_rows_are_stored_and_acknowledged_over_the_broker(kind: str, tmp_path: Path) -> None:
    async with site(kind, tmp_path) as here:
        with Device(await here.enrol("box-1")) as device:
            await until(lambda: device.granted == [True, True], WAIT_S, "the device's subscriptions")
            for first in range(1, 101, 10):
                rows = [decision(seq) if seq % 2 else event(seq) for seq in range(first, first + 10)]
                device.say("up", up("box-1", rows).payload)
            await until(lambda: device.acked() == 100, WAIT_S, "the acknowledgement")
        assert here.world.count(tables.decisions) + here.world.count(tables.events) == 100
        assert here.world.quarantined() == []


@pytest.mark.anyio
async def test_desired_state_reaches_a_device_that_comes_later_and_one_that_is_there(kind: str, tmp_path: Path) -> None:
    async with site(kind, tmp_path) as here:
        answer, fleet = await here.enrol("box-1"), here.world.services.fleet
        slots = {"brightness": DesiredBundles(active=REF)}
        await asyncio.to_thread(fleet.set_desired, "box-1", lambda old: old.model_copy(update={"bundles": slots}))
        version = fleet.desired("box-1").config_version
        with Device(answer) as device:
            await until(lambda: version in device.desired(), WAIT_S, "the retained desired state")
            await asyncio.to_thread(fleet.set_desired, "box-1", lambda old: old.model_copy(update={"bundles": {}}))
            await until(lambda: device.desired()[-1] == version + 1, WAIT_S, "the change")


@pytest.mark.anyio
async def test_presence_and_state_come_and_the_last_will_when_the_line_is_cut(kind: str, tmp_path: Path) -> None:
    async with site(kind, tmp_path) as here:
        fleet = here.world.services.fleet
        with Device(await here.enrol("box-1")) as device:
            await until(lambda: device.granted == [True, True], WAIT_S, "the device's subscriptions")
            birth = Presence(device="box-1", boot_id="b1", online=True, at_ms=1)
            device.say("presence", birth.model_dump_json(), retain=True)
            device.say("reported", reported().model_dump_json(), retain=True)
            await until(lambda: fleet.device("box-1").reported is not None, WAIT_S, "the state")
            await until(lambda: fleet.device("box-1").freshness == "fresh", WAIT_S, "fresh")
            device.cut()
            await until(lambda: fleet.device("box-1").freshness == "stale", 2 * WAIT_S, "the last will")


@pytest.mark.anyio
async def test_device_can_neither_speak_for_another_nor_hear_what_is_said_to_it(kind: str, tmp_path: Path) -> None:
    async with site(kind, tmp_path) as here:
        await here.enrol("box-2")
        with Device(await here.enrol("box-1")) as device:
            await until(lambda: device.granted == [True, True], WAIT_S, "the device's subscriptions")
            foreign = [
                topic("box-2", "desired"),
                topic("box-2", "ack"),
                "lineside/1/+/desired",
                "#",
                "$SYS/#",
                "$MQTT/#",
            ]
            for name in [*foreign, "$JS/#", "lineside/1/box-1/+", "$share/x/lineside/1/box-2/ack"]:
                device.client.subscribe(name, qos=1)
            device.received.clear()
            await asyncio.to_thread(
                here.world.services.fleet.set_desired, "box-2", lambda old: old.model_copy(update={"rollout": "x"})
            )
            here.parts.link.publish(topic("box-2", "ack"), b"secret", retain=False)
            here.parts.link.publish(topic("box-1", "ack"), b"", retain=False)
            mine = {topic("box-1", "ack"), topic("box-1", "desired")}
            await until(lambda: any("/ack" in name for name, _ in device.received), WAIT_S, "its own, sent last")
            assert {name for name, _ in device.received} <= mine
        answer = await here.enrol("box-3")
        for channel in ("up", "reported", "presence", "desired", "ack"):
            with Device(answer, client_id=f"liar-{channel}") as liar:
                await until(functools.partial(_granted, liar), WAIT_S, "the liar's subscriptions")
                liar.say(channel, up("box-2", [event(1)]).payload, retain=True, device="box-2")
                liar.say("up", up("box-3", [event(1)], incarnation=channel).payload)
        with Device(await here.enrol("box-4")) as device:
            device.say("up", up("box-4", [event(1)]).payload)
            await until(lambda: device.acked() == 1, WAIT_S, "an acknowledgement sent after all lies")
        with here.world.services.store.read() as connection:
            devices = set(connection.execute(select(tables.events.c.device)).scalars())
        assert "box-2" not in devices
        assert not any("box-2" in row.topic for row in here.world.rows(tables.quarantine))


@pytest.mark.anyio
async def test_new_device_gets_in_others_stay_and_a_revoked_one_is_thrown_out(kind: str, tmp_path: Path) -> None:
    async with site(kind, tmp_path) as here:
        with Device(await here.enrol("box-1")) as first:
            await until(lambda: first.granted == [True, True], WAIT_S, "the first device")
            with Device(await here.enrol("box-2")) as second:
                await until(lambda: second.granted == [True, True], WAIT_S, "the second device")
                assert first.granted == [True, True]
                await here.revoke("box-2")
                await until(lambda: second.lost, WAIT_S, "the revoked device's open connection to be cut")
                await until(lambda: not second.client.is_connected(), WAIT_S, "the revoked device to stay out")
                assert not await asyncio.to_thread(_is_let_in, second.answer, device_context(second.answer))
            assert (first.client.is_connected(), first.lost) == (True, False)


@pytest.mark.anyio
async def test_broker_that_forgot_everything_is_told_again(kind: str, tmp_path: Path) -> None:
    async with site(kind, tmp_path) as here:
        answer = await here.enrol("box-1")
        await asyncio.to_thread(
            here.world.services.fleet.set_desired, "box-1", lambda old: old.model_copy(update={"rollout": "x"})
        )
        with Device(answer) as device:
            await until(lambda: device.desired(), WAIT_S, "the desired state")
            device.say("up", up("box-1", [event(1)]).payload)
            await until(lambda: device.acked() == 1, WAIT_S, "an acknowledgement before")
            device.received.clear()
            await here.break_broker()
            await until(lambda: not here.parts.link.connected, WAIT_S, "the link to notice")
            await until(lambda: here.parts.link.connected, 2 * WAIT_S, "the link to come back")
            await until(lambda: device.desired(), 2 * WAIT_S, "the desired state again")
            device.say("up", up("box-1", [event(1), event(2)]).payload)
            await until(lambda: device.acked() == 2, WAIT_S, "an acknowledgement after")


@pytest.mark.anyio
async def test_link_keeps_trying_while_the_broker_is_away(tmp_path: Path) -> None:
    config = BrokerConfig(kind="external", port=free_port())
    world = World(tmp_path, broker=config)
    broker = world.parts.broker
    assert isinstance(broker, ExternalBroker)
    link = Link(broker.login, random.Random(1))
    task = asyncio.create_task(link.run(lambda _message: None, lambda: None))
    await asyncio.sleep(0.5)
    assert not task.done()
    assert not link.connected
    link.publish("lineside/1/box-1/ack", b"", retain=False)  # dropped, not raised
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    world.close()


def test_embedded_broker_keeps_its_port_over_starts(tmp_path: Path) -> None:
    config = CloudConfig(server=ServerConfig(port=0), store=StoreConfig(data_dir=tmp_path), broker=BrokerConfig(port=0))

    async def start_and_stop() -> tuple[int, int | None]:
        parts = build(config, SystemClock())
        await parts.broker.start()
        assert isinstance(parts.broker, EmbeddedBroker)
        pid, port = parts.broker.pid, parts.broker.endpoint()[1]
        await parts.broker.stop()
        parts.services.store.close()
        return port, pid

    (first, first_pid), (second, second_pid) = asyncio.run(start_and_stop()), asyncio.run(start_and_stop())
    assert first == second
    assert first_pid != second_pid


def _prove(client: mqtt.Client, answer: EnrolAnswer) -> None:
    """Have a client sign in as an enrolled device does."""
    tls = device_context(answer)
    if tls is not None:
        client.tls_set_context(tls)
    if answer.broker.username:
        client.username_pw_set(answer.broker.username, answer.broker.password)


def _is_let_in(answer: EnrolAnswer, tls: ssl.SSLContext | None) -> bool:
    """Return whether the broker takes an enrolled device's credential."""
    broker = answer.broker
    fields = [b"probe-" + answer.device.encode(), *(x.encode() for x in (broker.username, broker.password) if x)]
    flags = 0b1100_0010 if broker.username else 0b10
    body = b"\x00\x04MQTT\x04" + bytes([flags]) + b"\x00\x0a"
    body += b"".join(len(field).to_bytes(2, "big") + field for field in fields)
    try:
        with socket.create_connection((broker.host, broker.port), 5) as plain:
            with tls.wrap_socket(plain, server_hostname=broker.host) if tls else plain as line:
                line.sendall(b"\x10" + bytes([len(body)]) + body)
                return line.recv(4) == b"\x20\x02\x00\x00"
    except OSError:
        return False


def _granted(device: Device) -> bool:
    return device.granted == [True, True]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Keep the log of a failed test."""
    caplog.set_level("INFO")
    yield
