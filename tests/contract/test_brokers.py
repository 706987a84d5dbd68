"""The contract over real brokers: the embedded nats-server, and a Mosquitto on our files."""

import asyncio
import contextlib
import functools
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from cloud import tables
from cloud.broker import EmbeddedBroker, ExternalBroker
from cloud.clock import SystemClock
from cloud.config import BrokerConfig, CloudConfig, ServerConfig, StoreConfig
from cloud.link import Link
from cloud.server import build
from edge.wire.base import BundleRef
from edge.wire.http import EnrolAnswer
from edge.wire.messages import DesiredBundles, Presence
from edge.wire.topics import topic
from tests.brokers import find_binary, free_port
from tests.cloud.world import World, decision, device_context, event, reported, up
from tests.contract.sites import WAIT_S, Device, is_let_in, site
from tests.waiting import until

REF = BundleRef(name="brightness", version="1.0.0", digest="ab" * 32, size_bytes=3)


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
                assert not await asyncio.to_thread(is_let_in, second.answer, device_context(second.answer))
            assert (first.client.is_connected(), first.lost) == (True, False)


@pytest.mark.anyio
async def test_renewed_certificate_is_shown_to_who_comes_next_and_cuts_nobody(tmp_path: Path) -> None:
    async with site("nats", tmp_path, days_ago=62) as here:
        security, answer = here.world.services.security, await here.enrol("box-1")
        with Device(answer) as device:
            await until(lambda: device.granted == [True, True], WAIT_S, "the device's subscriptions")
            before = await asyncio.to_thread(_shown_by, answer)
            here.world.clock.forward(61 * 86_400)
            assert security.renew()
            here.parts.broker.accounts_changed()
            await until(lambda: _shown_by(answer) != before, WAIT_S, "the new certificate")
            device.say("up", up("box-1", [event(1)]).payload)
            await until(lambda: device.acked() == 1, WAIT_S, "an acknowledgement on the old connection")
            assert not device.lost
        assert is_let_in(answer, device_context(answer))


@pytest.mark.anyio
async def test_certificate_before_the_last_enrolment_is_of_no_use(kind: str, tmp_path: Path) -> None:
    async with site(kind, tmp_path) as here:
        first = await here.enrol("box-1")
        await here.revoke("box-1")
        second = await here.enrol("box-1")
        await until(lambda: not is_let_in(first, device_context(first)), WAIT_S, "the old certificate to be refused")
        assert is_let_in(second, device_context(second))


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


def _shown_by(answer: EnrolAnswer) -> bytes:
    """Return the certificate that the broker shows (DER)."""
    tls = device_context(answer)
    assert tls is not None
    with socket.create_connection((answer.broker.host, answer.broker.port), 5) as plain:
        return tls.wrap_socket(plain, server_hostname=answer.broker.host).getpeercert(binary_form=True) or b""


def _granted(device: Device) -> bool:
    return device.granted == [True, True]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Keep the log of a failed test."""
    caplog.set_level("INFO")
    yield
