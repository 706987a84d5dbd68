"""The device's link on real brokers, over a network that fails in every way it can."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.clock import SystemClock
from edge.errors import LinkError
from edge.link import MAX_PAYLOAD_BYTES, Link
from edge.mqttsession import LinkTimes
from edge.wire.http import BrokerAddress
from edge.wire.messages import Ack, Desired, Presence, parse_message
from edge.wire.topics import topic
from tests.badlink import BadLink
from tests.brokers import KINDS, TestBroker, broker
from tests.waiting import until, wait_until

pytestmark = pytest.mark.anyio

FAST = LinkTimes(keepalive_s=1, connect_s=2, publish_s=2, backoff_min_s=0.05, backoff_max_s=0.3, stable_s=5)
DEVICE = "box-1"


@pytest.fixture(params=KINDS)
def any_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TestBroker]:
    with broker(request.param, tmp_path / "broker") as made:
        yield made


class Cloud:
    """The other end: a client of the broker that keeps what devices say."""

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="cloud")
        self._client.on_message = lambda _c, _u, message: self.heard.append((message.topic, bytes(message.payload)))
        self._client.on_connect = lambda client, *_: client.subscribe("lineside/1/#", qos=1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        wait_until(self._client.is_connected, 10, "the other end's connection")

    def say(self, name: str, payload: bytes, *, retain: bool = False, wait: bool = True) -> None:
        sent = self._client.publish(name, payload, qos=1, retain=retain)
        if wait:
            sent.wait_for_publish(10)

    def presences(self) -> list[Presence]:
        found = [parse_message(payload) for name, payload in self.heard if name == topic(DEVICE, "presence")]
        return [message for message in found if isinstance(message, Presence)]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@asynccontextmanager
async def linked(address: BrokerAddress, *, port: int | None = None, boot_id: str = "boot-1") -> AsyncIterator[Link]:
    address = address.model_copy(update={"port": port or address.port})
    async with Link(address, DEVICE, boot_id, SystemClock(), times=FAST, rng=random.Random(1)) as link:
        yield link


async def connected(link: Link, timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        await link.connected.wait()


def desired(version: int) -> bytes:
    return Desired(device=DEVICE, config_version=version, issued_at_ms=1).model_dump_json().encode()


def ack(through: int) -> bytes:
    return Ack(device=DEVICE, incarnation="i", stored_through=through).model_dump_json().encode()


async def test_broker_there_messages_pass_both_ways_and_birth_is_retained(any_broker: TestBroker) -> None:
    cloud = Cloud(any_broker.port)
    cloud.say(topic(DEVICE, "desired"), desired(3), retain=True)
    async with linked(any_broker.address) as link:
        await connected(link)
        assert (await asyncio.wait_for(link.desired.get(), 5)).config_version == 3
        await link.publish("reported", b'{"x":1}', retain=True)
        await until(lambda: (topic(DEVICE, "reported"), b'{"x":1}') in cloud.heard, 5, "the report")
        await until(lambda: [p.online for p in cloud.presences()] == [True], 5, "the birth message")
        await asyncio.to_thread(cloud.say, topic(DEVICE, "ack"), ack(7))
        assert (await asyncio.wait_for(link.acks.get(), 5)).stored_through == 7
    await until(lambda: [p.online for p in cloud.presences()] == [True, False], 5, "the goodbye")
    late = Cloud(any_broker.port)
    await until(lambda: [(p.online, p.boot_id) for p in late.presences()] == [(False, "boot-1")], 5, "what is retained")
    late.close()
    cloud.close()


async def test_broker_away_at_start_connects_when_it_comes(tmp_path: Path) -> None:
    with broker("nats", tmp_path / "broker", start=False) as made:
        async with linked(made.address) as link:
            await until(lambda: link.problem and "refused" in link.problem.lower(), 5, "the reason")
            with pytest.raises(LinkError, match="no connection to the broker"):
                await link.publish("up", b"{}")
            await asyncio.to_thread(made.start)
            await connected(link)
            await link.publish("up", b"{}")


async def test_broker_killed_and_back_subscribes_again(any_broker: TestBroker) -> None:
    async with linked(any_broker.address) as link:
        await connected(link)
        any_broker.stop()
        await until(lambda: not link.connected.is_set(), 5, "the loss to be noticed")
        await asyncio.to_thread(any_broker.start)
        await connected(link)
        cloud = Cloud(any_broker.port)
        await asyncio.to_thread(cloud.say, topic(DEVICE, "desired"), desired(9), retain=True)
        assert (await asyncio.wait_for(link.desired.get(), 5)).config_version == 9
        cloud.close()


async def test_connection_dies_without_goodbye_last_will_speaks_for_the_same_boot(any_broker: TestBroker) -> None:
    cloud = Cloud(any_broker.port)
    with BadLink(any_broker.port) as bad:
        async with linked(any_broker.address, port=bad.port, boot_id="boot-7") as link:
            await connected(link)
            bad.refuse = True
            bad.cut()
            await until(lambda: [p.online for p in cloud.presences()][-1:] == [False], 10, "the last will")
            assert cloud.presences()[-1].boot_id == "boot-7"
            bad.refuse = False
            await connected(link)
            await until(lambda: cloud.presences()[-1].online, 5, "the second birth message")
    cloud.close()


async def test_half_open_link_publish_fails_in_time_and_recovers(any_broker: TestBroker) -> None:
    with BadLink(any_broker.port) as bad:
        async with linked(any_broker.address, port=bad.port) as link:
            await connected(link)
            bad.hole = True
            with pytest.raises(LinkError):
                async with asyncio.timeout(8):
                    await link.publish("up", b"{}")
            bad.hole = False
            await connected(link)
            await link.publish("up", b"{}")


async def test_idle_half_open_link_keepalive_notices(tmp_path: Path) -> None:
    with broker("mosquitto", tmp_path / "broker") as made, BadLink(made.port) as bad:
        async with linked(made.address, port=bad.port) as link:
            await connected(link)
            bad.hole = True
            await until(lambda: not link.connected.is_set(), 8, "the keep-alive to notice")


async def test_frozen_broker_connect_gives_up_and_tries_again(tmp_path: Path) -> None:
    with broker("mosquitto", tmp_path / "broker") as made:
        made.pause()
        async with linked(made.address) as link:
            await until(lambda: link.problem and str(made.port) in link.problem, 10, "the reason")
            assert not link.connected.is_set()
            made.resume()
            await connected(link)


async def test_poison_messages_are_counted_and_dropped_and_the_next_one_is_read(
    any_broker: TestBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    cloud = Cloud(any_broker.port)
    poison = [b"", b"\xff\xfe\x00", b"[" * 5000, b'{"kind":"desired"}', b'{"kind":"nonsense"}', b"x" * 600_000]
    foreign = Ack(device="box-2", incarnation="i", stored_through=1).model_dump_json().encode()
    async with linked(any_broker.address) as link:
        await connected(link)
        for payload in [*poison, foreign]:
            await asyncio.to_thread(cloud.say, topic(DEVICE, "ack"), payload)
        await asyncio.to_thread(cloud.say, topic(DEVICE, "ack"), ack(1))
        assert (await asyncio.wait_for(link.acks.get(), 5)).stored_through == 1
        assert link.unreadable == len(poison) + 1
        assert link.connections == 1
    cloud.close()


async def test_random_bytes_instead_of_a_broker_never_kill_the_link() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)

    async def garbage(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(rng.randbytes(rng.randrange(1, 200)))
        writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    address = BrokerAddress(host="127.0.0.1", port=port, username="u", password="p")
    times = LinkTimes(keepalive_s=1, connect_s=1, publish_s=1, backoff_min_s=0.01, backoff_max_s=0.02, stable_s=5)
    async with Link(address, DEVICE, "b", SystemClock(), times=times, rng=rng) as link:
        seen: set[str | None] = set()
        for _ in range(20):
            before = link.problem
            await asyncio.sleep(0.1)
            seen.add(link.problem)
        assert not link._task.done(), before
        assert not link.connected.is_set()
    server.close()


async def test_two_devices_of_one_name_reconnect_with_growing_pauses(tmp_path: Path) -> None:
    with broker("mosquitto", tmp_path / "broker") as made, BadLink(made.port) as bad:
        async with linked(made.address, port=bad.port) as one, linked(made.address, port=bad.port) as other:
            await until(lambda: bad.connections >= 6, 20, "the two to have pushed each other out")
            before = bad.connections
            await asyncio.sleep(1)
            # Full jitter up to 0.3 s: about seven a second each; without back-off it would be hundreds.
            assert bad.connections - before < 40
            assert one._task.done() is other._task.done() is False


async def test_message_too_large_is_refused_before_it_is_sent(any_broker: TestBroker) -> None:
    async with linked(any_broker.address) as link:
        await connected(link)
        await link.publish("up", b"x" * MAX_PAYLOAD_BYTES)
        with pytest.raises(LinkError, match="may have") as caught:
            await link.publish("up", b"x" * (MAX_PAYLOAD_BYTES + 1))
        assert not caught.value.retry
        assert link.connections == 1


async def test_desired_flood_keeps_the_newest(tmp_path: Path) -> None:
    with broker("nats", tmp_path / "broker") as made:
        cloud = Cloud(made.port)
        async with linked(made.address) as link:
            await connected(link)
            for version in range(200):
                cloud.say(topic(DEVICE, "desired"), desired(version), wait=version == 199)
            await until(lambda: link.desired.full(), 5, "the inbox to fill")
            newest = 0
            while newest < 199:
                newest = (await asyncio.wait_for(link.desired.get(), 5)).config_version
        cloud.close()
