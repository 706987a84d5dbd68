"""The outbox over real brokers and a bad network, against a control plane that stores, forgets and is silent."""

import asyncio
import random
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge import uplink
from edge.clock import SystemClock
from edge.link import Link
from edge.mqttsession import LinkTimes
from edge.store import Store
from edge.uplink import UplinkTimes
from edge.wire.messages import Ack, Up, parse_message
from edge.wire.rows import EventRow
from edge.wire.topics import topic
from tests.badlink import BadLink
from tests.brokers import KINDS, TestBroker, broker
from tests.rows import decision, outcome
from tests.waiting import until, wait_until

pytestmark = pytest.mark.anyio

DEVICE = "box-1"
LINK = LinkTimes(keepalive_s=2, connect_s=2, publish_s=2, backoff_min_s=0.02, backoff_max_s=0.2, stable_s=5)
TIMES = UplinkTimes(poll_s=0.02, ack_s=0.3, ack_max_s=0.6, store_s=0.05)


class ControlPlane:
    """Stores rows by number and acknowledges the highest one up to which it has all."""

    def __init__(self, port: int) -> None:
        self.rows: dict[int, str] = {}
        self.batches: list[int] = []
        self.repeats = 0
        self.silent = False
        """Stores nothing and says nothing."""
        self.mute = False
        """Stores, and says nothing."""
        self.refuses: set[int] = set()
        """Takes no batch that holds one of these."""
        self.wanted: list[str] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="cloud", clean_session=False)
        self._client.on_message = lambda _c, _u, message: self._take(bytes(message.payload))
        self._client.on_connect = lambda client, *_: client.subscribe(topic(DEVICE, "up"), qos=1)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()
        wait_until(self._client.is_connected, 10, "the control plane's connection")

    def stored_through(self) -> int:
        seq = 0
        while seq + 1 in self.rows:
            seq += 1
        return seq

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, payload: bytes) -> None:
        up = parse_message(payload)
        assert isinstance(up, Up)
        self.batches.append(len(up.rows))
        if self.silent or self.refuses & {row.seq for row in up.rows}:
            return
        for row in up.rows:
            text = row.model_dump_json()
            self.repeats += row.seq in self.rows
            assert self.rows.setdefault(row.seq, text) == text, "one number, two rows"
        if not self.mute:
            self.acknowledge(up.incarnation)

    def acknowledge(self, incarnation: str) -> None:
        ack = Ack(
            device=DEVICE, incarnation=incarnation, stored_through=self.stored_through(), wanted_inputs=self.wanted
        )
        self._client.publish(topic(DEVICE, "ack"), ack.model_dump_json().encode(), qos=1)


@pytest.fixture(params=KINDS)
def any_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TestBroker]:
    with broker(request.param, tmp_path / "broker") as made:
        yield made


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[TestBroker]:
    with broker("nats", tmp_path / "broker") as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "record.db", clock=SystemClock(), durability="process") as made:
        yield made


@asynccontextmanager
async def sending(
    store: Store, made: TestBroker, *, port: int | None = None, times: UplinkTimes = TIMES
) -> AsyncIterator[Link]:
    address = made.address.model_copy(update={"port": port or made.port})
    own = Store.open(store._c.path, clock=SystemClock(), durability="process")
    async with Link(address, DEVICE, "boot", SystemClock(), times=LINK, rng=random.Random(1)) as link:
        task = asyncio.create_task(uplink.run(link, own, device=DEVICE, times=times))
        try:
            yield link
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            own.close()


def decide(store: Store, count: int) -> None:
    for _ in range(count):
        row = store.append_decision(decision(f"{random.random()}.jpg"), input_key=None)
        store.append_outcome(outcome(row.seq))


async def all_stored(store: Store, cloud: ControlPlane, timeout_s: float = 30) -> None:
    await until(lambda: store.outbox_size().rows == 0, timeout_s, f"the outbox to empty ({len(cloud.batches)} batches)")
    assert cloud.rows == {row.seq: row.model_dump_json() for row in store.rows(limit=10**6)}


async def test_backlog_and_new_rows_are_stored_in_batches(store: Store, any_broker: TestBroker) -> None:
    cloud = ControlPlane(any_broker.port)
    decide(store, 600)
    async with sending(store, any_broker, times=replace(TIMES, ack_s=30.0, ack_max_s=30.0)):
        await all_stored(store, cloud)
        assert max(cloud.batches) == 200
        assert len(cloud.batches) < 12
        assert cloud.repeats == 0
        decide(store, 1)
        await until(lambda: store.outbox_size().rows == 0, 10, "a new row to be stored at once")
    cloud.close()


async def test_brokers_acknowledgement_frees_nothing(store: Store, any_broker: TestBroker) -> None:
    cloud = ControlPlane(any_broker.port)
    cloud.mute = True
    decide(store, 5)
    async with sending(store, any_broker):
        await until(lambda: len(cloud.rows) == 10, 10, "the rows to arrive")
        await asyncio.sleep(0.2)
        assert store.outbox_size().rows == 10
        cloud.mute = False
        await all_stored(store, cloud)
        assert cloud.repeats > 0
    cloud.close()


async def test_silent_control_plane_gets_fewer_and_smaller_messages_and_then_everything(
    store: Store, nats: TestBroker
) -> None:
    cloud = ControlPlane(nats.port)
    cloud.silent = True
    decide(store, 700)
    async with sending(store, nats):
        await until(lambda: cloud.batches and cloud.batches[-1] <= 25, 30, "small messages")
        assert 1 <= cloud.batches.count(200) <= 4, "at most four batches ahead"
        assert cloud.batches == sorted(cloud.batches, reverse=True)
        assert set(cloud.batches) <= {200, 100, 50, 25, 12}
        cloud.silent = False
        await all_stored(store, cloud)
    cloud.close()


async def test_row_that_the_other_side_refuses_holds_up_only_what_is_behind_it(store: Store, nats: TestBroker) -> None:
    cloud = ControlPlane(nats.port)
    cloud.refuses = {20}
    decide(store, 15)
    async with sending(store, nats):
        await until(lambda: cloud.stored_through() == 19, 30, "everything before the row")
        assert store.stored_through() <= 19
        cloud.refuses = set()
        await all_stored(store, cloud)
    cloud.close()


async def test_row_damaged_on_disk_becomes_an_event_that_holds_its_text(store: Store, nats: TestBroker) -> None:
    cloud = ControlPlane(nats.port)
    decide(store, 3)
    with sqlite3.connect(store._c.path) as other:
        other.execute("UPDATE rows SET body = replace(body, '\"decision\"', '\"dexision\"') WHERE seq = 3")

    def take(payload: bytes) -> None:
        if b'"kind":"dexision"' not in payload:
            ControlPlane._take(cloud, payload)

    cloud._take = take  # type: ignore[method-assign]
    async with sending(store, nats):
        await until(lambda: store.outbox_size().rows == 0, 30, "the outbox to empty")
    row = store.rows(after=2, limit=1)[0]
    assert isinstance(row, EventRow)
    assert row.name == "row_damaged"
    assert "dexision" in row.data["text"]
    cloud.close()


async def test_line_cut_again_and_again_everything_is_stored_once(store: Store, any_broker: TestBroker) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    cloud = ControlPlane(any_broker.port)
    with BadLink(any_broker.port) as bad:
        async with sending(store, any_broker, port=bad.port):
            for _ in range(15):
                decide(store, rng.randrange(1, 120))
                await asyncio.sleep(rng.uniform(0.0, 0.15))
                bad.cut()
            await all_stored(store, cloud)
            assert bad.connections > 5
    cloud.close()


async def test_half_open_line_is_noticed_and_everything_is_stored(store: Store, any_broker: TestBroker) -> None:
    cloud = ControlPlane(any_broker.port)
    with BadLink(any_broker.port) as bad:
        async with sending(store, any_broker, port=bad.port) as link:
            await until(link.connected.is_set, 10, "the connection")
            bad.hole = True
            decide(store, 50)
            await until(lambda: not link.connected.is_set(), 10, "the silence to be noticed")
            bad.hole = False
            await all_stored(store, cloud)
    cloud.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_broker_restarted_everything_is_stored_once(
    store: Store, any_broker: TestBroker, how: signal.Signals
) -> None:
    cloud = ControlPlane(any_broker.port)
    async with sending(store, any_broker):
        for _ in range(2):
            decide(store, 100)
            await asyncio.sleep(0.05)
            await asyncio.to_thread(any_broker.stop, how)
            decide(store, 100)
            await asyncio.to_thread(any_broker.start)
        await all_stored(store, cloud, 60)
    cloud.close()


async def test_control_plane_that_lost_its_last_rows_gets_what_it_never_acknowledged(
    store: Store, nats: TestBroker
) -> None:
    cloud = ControlPlane(nats.port)
    cloud.mute = True
    decide(store, 40)
    async with sending(store, nats):
        await until(lambda: len(cloud.rows) == 80, 10, "the rows to arrive")
        for seq in range(30, 81):
            cloud.rows.pop(seq)
        cloud.mute = False
        await all_stored(store, cloud)
    cloud.close()


async def test_acknowledgement_for_another_incarnation_frees_nothing(store: Store, nats: TestBroker) -> None:
    cloud = ControlPlane(nats.port)
    cloud.mute = True
    decide(store, 5)
    async with sending(store, nats):
        await until(lambda: len(cloud.rows) == 10, 10, "the rows to arrive")
        cloud.acknowledge("somebody-else")
        await asyncio.sleep(0.3)
        assert store.stored_through() == 0
        cloud.mute = False
        await all_stored(store, cloud)
    cloud.close()


async def test_wanted_inputs_are_queued(store: Store, nats: TestBroker) -> None:
    cloud = ControlPlane(nats.port)
    row = store.append_decision(decision(raw=b"x"), input_key=None, keep=(b"x", "image/jpeg"), upload=False)
    cloud.wanted = [row.input.digest]
    async with sending(store, nats):
        await until(lambda: store.inputs.waiting() == 1, 10, "the input to be queued")
    cloud.close()


async def test_full_disk_does_not_end_the_uplink(small_disk: Path, nats: TestBroker) -> None:
    with Store.open(small_disk / "record.db", clock=SystemClock(), durability="process") as store:
        cloud = ControlPlane(nats.port)
        decide(store, 20)
        (small_disk / "ballast").touch()
        with (small_disk / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(b"b" * 65536) == 65536:
                pass
        async with sending(store, nats):
            await until(lambda: len(cloud.rows) == 40, 10, "the rows to arrive")
            (small_disk / "ballast").unlink()
            await all_stored(store, cloud)
        cloud.close()
