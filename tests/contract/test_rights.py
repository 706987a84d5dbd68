"""Who may touch which topic: every device's credential against every topic, on every broker and of every kind."""

import asyncio
import threading
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from cloud.link import Login
from edge.wire.http import EnrolAnswer
from edge.wire.topics import CHANNELS, FROM_DEVICE, TO_DEVICE, topic
from tests.brokers import find_binary
from tests.contract.sites import WAIT_S, Credential, prove, site
from tests.waiting import wait_until

DEVICES = ("box-1", "box-2")
CONTRACT = [topic(device, channel) for device in DEVICES for channel in CHANNELS]
NOBODYS = ["lineside/1/box-9/up", "lineside/2/box-1/up", "lineside/1/box-1", "lineside/1/box-1/up/more", "other"]
SYSTEMS = ["$SYS/broker/uptime", "$MQTT/x", "$JS/API/x"]
WILDCARDS = [
    "#",
    "+/#",
    "lineside/#",
    "lineside/1/+/desired",
    "lineside/1/+/ack",
    "lineside/1/+/up",
    "lineside/1/box-1/#",
    "lineside/1/box-2/+",
    "$SYS/#",
    "$MQTT/#",
    "$JS/#",
    "$share/g/lineside/1/box-1/ack",
    "$share/g/lineside/1/box-2/ack",
]
ANSWER_S = 20.0


class Client:
    """An MQTT client that waits for each answer."""

    def __init__(self, host: str, port: int, client_id: str) -> None:
        self.received: list[tuple[str, bytes]] = []
        self._where = (host, port)
        self._answered = threading.Event()
        self._granted = self._open = False
        self.paho = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv311)
        self.paho.on_connect = self._connected
        self.paho.on_subscribe = lambda _c, _u, _m, codes, _p: self._answer(granted=not codes[0].is_failure)
        self.paho.on_publish = lambda _c, _u, _m, code, _p: self._answer(granted=not code.is_failure)
        self.paho.on_disconnect = self._lost
        self.paho.on_message = lambda _c, _u, message: self.received.append((message.topic, bytes(message.payload)))

    def open(self) -> None:
        """Connect, if it is not connected."""
        if self._open:
            return
        self.paho.loop_stop()
        self._answered.clear()
        self.paho.connect(*self._where, keepalive=30)
        self.paho.loop_start()
        assert self._answered.wait(ANSWER_S)
        assert self._open, "the broker has not let it in"

    def publish(self, name: str, payload: bytes) -> bool:
        """Return whether the broker has acknowledged a message; a broker may cut the connection instead."""
        self.open()
        self._answered.clear()
        self.paho.publish(name, payload, qos=1)
        assert self._answered.wait(ANSWER_S), name
        return self._granted

    def subscribe(self, name: str) -> bool:
        """Return whether the broker has granted a subscription."""
        self.open()
        self._answered.clear()
        self.paho.subscribe(name, qos=1)
        assert self._answered.wait(ANSWER_S), name
        return self._granted

    def close(self) -> None:
        """Go."""
        self.paho.on_disconnect = None
        self.paho.disconnect()
        self.paho.loop_stop()

    def _connected(self, _c: Any, _u: Any, _f: Any, code: Any, _p: Any) -> None:
        self._open = not code.is_failure
        self._answer(granted=self._open)

    def _lost(self, *_: Any) -> None:
        self._open = False
        self._answer(granted=False)

    def _answer(self, *, granted: bool) -> None:
        self._granted = granted
        self._answered.set()


@pytest.mark.anyio
@pytest.mark.parametrize("credential", ["certificate", "password"])
@pytest.mark.parametrize("kind", ["nats", "mosquitto"])
async def test_every_device_touches_its_own_topics_and_no_other_whatever_it_tries(
    kind: str, credential: Credential, tmp_path: Any
) -> None:
    find_binary(kind)
    async with site(kind, tmp_path, credential) as here:
        answers = [await here.enrol(device) for device in DEVICES]
        login = here.parts.broker.login()
        # What its own ingest makes of the payloads is another test's business.
        await asyncio.to_thread(_hold_matrix, kind, answers, login)


@pytest.fixture
def anyio_backend() -> str:
    """The control plane runs in asyncio."""
    return "asyncio"


def _hold_matrix(kind: str, answers: list[EnrolAnswer], login: Login) -> None:
    cloud = Client(login.host, login.port, "observer")
    if login.tls is not None:
        cloud.paho.tls_set_context(login.tls)
    if login.username:
        cloud.paho.username_pw_set(login.username, login.password)
    try:
        assert cloud.subscribe("lineside/1/#")
        for answer in answers:
            _hold_publishing(cloud, answer)
            _hold_subscribing(cloud, answer, says_no=kind == "nats")
    finally:
        cloud.close()


def _hold_publishing(cloud: Client, answer: EnrolAnswer) -> None:
    device = _client(answer)
    cloud.received.clear()
    mine = [topic(answer.device, channel) for channel in FROM_DEVICE]
    tried = [name for name in (*CONTRACT, *NOBODYS, *SYSTEMS) if name not in mine]
    _lie(answer)
    for name in (*tried, *mine):
        acknowledged = device.publish(name, b"from " + answer.device.encode())
        assert acknowledged or name not in mine, name
    wait_until(lambda: any(name == mine[-1] for name, _ in cloud.received), WAIT_S, "what was sent last")
    got = {name for name, payload in cloud.received if payload == b"from " + answer.device.encode()}
    assert got == set(mine)
    device.close()


def _lie(answer: EnrolAnswer) -> None:
    """Show the own credential under another device's name: in vain, if the broker lets it in at all."""
    other = next(name for name in DEVICES if name != answer.device)
    liar = _client(answer)
    liar.paho.username_pw_set(other, answer.broker.password or None)
    try:
        liar.publish(topic(other, "up"), b"from " + answer.device.encode())
    except AssertionError:
        assert not liar.received
    liar.close()


def _hold_subscribing(cloud: Client, answer: EnrolAnswer, *, says_no: bool) -> None:
    """`says_no`: whether the broker refuses a subscription, rather than delivers nothing."""
    device = _client(answer)
    mine = [topic(answer.device, channel) for channel in TO_DEVICE]
    granted = {name: device.subscribe(name) for name in (*CONTRACT, *NOBODYS, *SYSTEMS, *WILDCARDS)}
    assert all(device.subscribe(name) for name in mine)
    assert not says_no or {name for name, given in granted.items() if given} == set(mine)
    device.received.clear()
    last = mine[-1]
    for name in (*(name for name in CONTRACT if name != last), last):
        assert cloud.publish(name, b"to all")
    wait_until(lambda: any(name == last for name, _ in device.received), WAIT_S, "what was sent last")
    assert {name for name, _ in device.received} == set(mine)
    device.close()


def _client(answer: EnrolAnswer) -> Client:
    client = Client(answer.broker.host, answer.broker.port, answer.device)
    prove(client.paho, answer)
    return client
