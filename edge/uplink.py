"""Sends the outbox until the control plane says that it has stored it.

Rules:
- Only `ack` frees rows; the broker's own acknowledgement frees nothing.
- Rows go in order, at most `WINDOW_BATCHES` batches ahead of what is stored. After a new connection, and after a
  wait without progress, sending begins again behind the last stored row: repeats cost bytes, gaps cost decisions.
- No progress halves the batch and lengthens the wait; progress undoes both. So a bad link gets small messages, and
  one row that the other side cannot take does not keep others from being stored; if its text was damaged on this
  disk, an event takes its place.
- Rows are made safe against a power cut before they are sent.
- Neither a full disk nor a broken link ends it.
"""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from edge.errors import LinkError, StoreError
from edge.rowtext import StoredRow
from edge.store import BATCH_ROWS, Store
from edge.wire.messages import Ack
from edge.wire.topics import Channel

log = logging.getLogger(__name__)

WINDOW_BATCHES = 4
"""Batches on their way: enough to fill a link with a second of delay, little enough to repeat."""


class Wire(Protocol):
    """The part of the link that is needed."""

    connected: asyncio.Event
    connections: int
    acks: "asyncio.Queue[Ack]"

    async def publish(self, channel: Channel, payload: bytes, *, retain: bool = False) -> None: ...


@dataclass(frozen=True, slots=True)
class UplinkTimes:
    """Waits of the uplink, in seconds."""

    poll_s: float = 0.1
    """How often new rows are looked for when nothing announces them."""
    ack_s: float = 5.0
    """Without progress for this long everything not stored is sent again."""
    ack_max_s: float = 120.0
    """The wait doubles up to this."""
    store_s: float = 1.0
    """Pause after the disk refused something."""


async def run(
    link: Wire,
    store: Store,
    *,
    device: str,
    wake: asyncio.Event | None = None,
    times: UplinkTimes | None = None,
) -> None:
    """Send rows and take acknowledgements until cancelled. The store must be this task's own."""
    uplink = _Uplink(link, store, device, wake or asyncio.Event(), times or UplinkTimes())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(uplink.listen(), name="uplink-acks")
        while True:
            try:
                await uplink.step()
            except LinkError as error:
                log.info("not sent: %s", error)
                uplink.begin_again()
            except StoreError as error:
                log.warning("outbox: %s", error)
                await asyncio.sleep(uplink.times.store_s)


class _Uplink:
    """How far sending has come. One step sends one batch or waits for news."""

    def __init__(self, link: Wire, store: Store, device: str, wake: asyncio.Event, times: UplinkTimes) -> None:
        self.times = times
        self._link = link
        self._store = store
        self._device = device
        self._wake = wake
        self._stored = store.stored_through()
        self._sent = self._stored
        self._acks: deque[Ack] = deque()
        self._in_flight: deque[int] = deque()
        """Last seq of each batch that is sent and not stored."""
        self._connection = link.connections
        self._max_rows = BATCH_ROWS
        self._fruitless = 0
        self._progress_s = asyncio.get_running_loop().time()

    def begin_again(self) -> None:
        """Send everything that is not stored once more."""
        self._sent = self._stored
        self._in_flight.clear()
        self._progress_s = asyncio.get_running_loop().time()

    async def listen(self) -> None:
        """Hand every acknowledgement to the next step, and wake it."""
        while True:
            self._acks.append(await self._link.acks.get())
            self._wake.set()

    async def step(self) -> None:
        """Take what came, then send one batch, or wait for news."""
        await self._take_acks()
        if not self._link.connected.is_set():
            await self._news()
            return
        if self._link.connections != self._connection:
            self._connection = self._link.connections
            self.begin_again()
        self._notice_silence()
        batch = self._store.unsent(self._sent, max_rows=self._max_rows) if self._has_more() else []
        if not batch:
            await self._news()
            return
        await asyncio.to_thread(self._store.make_power_safe)
        await self._link.publish("up", self._payload(batch))
        self._sent = batch[-1].seq
        self._in_flight.append(self._sent)

    async def _take_acks(self) -> None:
        while self._acks:
            ack = self._acks[0]  # removed when the disk has taken it
            if ack.incarnation == self._store.incarnation:
                await asyncio.to_thread(self._store.mark_stored, ack.incarnation, ack.stored_through)
                if ack.wanted_inputs:
                    await asyncio.to_thread(self._store.inputs.want, ack.wanted_inputs)
                self._advance(ack.stored_through)
            self._acks.popleft()

    def _advance(self, stored_through: int) -> None:
        if stored_through <= self._stored:
            return
        self._stored = stored_through
        self._sent = max(self._sent, stored_through)
        while self._in_flight and self._in_flight[0] <= stored_through:
            self._in_flight.popleft()
        self._max_rows = min(self._max_rows * 2, BATCH_ROWS)
        self._fruitless = 0
        self._progress_s = asyncio.get_running_loop().time()

    def _notice_silence(self) -> None:
        if not self._in_flight:
            self._progress_s = asyncio.get_running_loop().time()
            return
        patience_s = min(self.times.ack_s * 2.0 ** min(self._fruitless, 20), self.times.ack_max_s)
        if asyncio.get_running_loop().time() - self._progress_s < patience_s:
            return
        log.warning("nothing stored for %.1f s: sending again behind row %d", patience_s, self._stored)
        self._fruitless += 1
        self._store.mend_unsent()
        self._max_rows = max(self._max_rows // 2, 1)
        self.begin_again()

    def _has_more(self) -> bool:
        return len(self._in_flight) < WINDOW_BATCHES and self._store.last_seq() > self._sent

    def _payload(self, batch: list[StoredRow]) -> bytes:
        # Put together from texts: rows were written as JSON once and need not be parsed to travel.
        rows = ",".join(row.body for row in batch)
        head = f'{{"kind":"up","device":"{self._device}","incarnation":"{self._store.incarnation}","rows":['
        return f"{head}{rows}]}}".encode()

    async def _news(self) -> None:
        try:
            async with asyncio.timeout(self.times.poll_s):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()
