"""The device's link to the broker: always trying, never in the way.

Rules:
- Entering the link returns at once, whether or not a broker is there; `connected` tells when one is.
- A message that cannot be sent now is an error at once: the truth waits in the store, not in a queue here.
- After every connection: subscribe again (whatever session the broker remembers), then the birth message, retained.
  The last will says the opposite with the same boot id.
- What comes in and cannot be read is counted, logged and dropped.
- Reconnects with full jitter; the back-off is reset only by a connection that held.
"""

import asyncio
import logging
import random
import ssl
from types import TracebackType
from typing import Self, TypeVar

from edge.clock import Clock
from edge.errors import LinkError
from edge.mqttsession import LinkTimes, Session
from edge.tls import context
from edge.wire.http import BrokerAddress
from edge.wire.messages import Ack, Desired, Presence, parse_message
from edge.wire.topics import TO_DEVICE, Channel, parse, topic

log = logging.getLogger(__name__)

MAX_PAYLOAD_BYTES = 512 * 1024
"""Half of what the smallest broker in use takes; a batch is at most 256 KB."""
INBOX = 64
"""Messages that wait to be read. `desired` is whole and `ack` is cumulative, so the oldest may go."""
MAX_IN_FLIGHT = 16
"""Messages waiting for the broker's acknowledgement; below paho's own limit, so that its queue stays empty."""

Item = TypeVar("Item")


class Link:
    """`async with Link(…) as link:` keeps one connection to the broker for as long as it is open."""

    def __init__(
        self,
        broker: BrokerAddress,
        device: str,
        boot_id: str,
        clock: Clock,
        *,
        times: LinkTimes | None = None,
        tls: ssl.SSLContext | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._broker = broker
        self._device = device
        self._boot_id = boot_id
        self._clock = clock
        self._times = times or LinkTimes()
        self.tls = tls or (context() if broker.tls else None)
        """How the next connection meets the broker."""
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._session: Session | None = None
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self.connected = asyncio.Event()
        """Set while messages can be sent."""
        self.connections = 0
        """Connections so far: a change means that there was a gap."""
        self.problem: str | None = "not connected yet"
        """Why there is no connection, in words; None while there is one."""
        self.desired: asyncio.Queue[Desired] = asyncio.Queue(INBOX)
        self.acks: asyncio.Queue[Ack] = asyncio.Queue(INBOX)
        self.unreadable = 0
        """Messages that were dropped because they could not be read."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep_connected(), name="link")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._say_goodbye()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def publish(self, channel: Channel, payload: bytes, *, retain: bool = False) -> None:
        """Send one message; return when the broker has acknowledged it (which does not mean stored).

        Raises:
            LinkError: there is no connection, it broke, or the message is too large (then `retry` is False).
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise LinkError(f"a message may have {MAX_PAYLOAD_BYTES} bytes, got {len(payload)}", retry=False)
        async with self._slots:
            session = self._session
            if session is None or not self.connected.is_set():
                raise LinkError(f"no connection to the broker: {self.problem}")
            await session.publish(topic(self._device, channel), payload, retain=retain)

    # ── private, in call order ────────────────────────────────────────────────────────────────────────────────

    async def _keep_connected(self) -> None:
        failures = 0
        while True:
            began_s = self._clock.monotonic_s()
            try:
                why = await self._one_connection()
            except LinkError as error:
                why = str(error)
            except Exception as error:  # the link must outlive its own mistakes
                log.exception("unexpected error in the link")
                why = f"{type(error).__name__}: {error}"
            if why != self.problem:
                log.warning("no connection: %s", why)
            self.problem = why
            failures = 0 if self._clock.monotonic_s() - began_s >= self._times.stable_s else failures + 1
            await asyncio.sleep(self._pause_s(failures))

    async def _one_connection(self) -> str:
        session = Session(
            self._broker,
            self._device,
            self._times,
            will=(topic(self._device, "presence"), self._presence(online=False)),
            on_message=self._receive,
            on_closed=self.connected.clear,
            tls=self.tls,
        )
        upkeep = asyncio.create_task(session.upkeep(), name="link-upkeep")
        try:
            await session.open([topic(self._device, channel) for channel in TO_DEVICE])
            await session.publish(topic(self._device, "presence"), self._presence(online=True), retain=True)
            self._session, self.problem = session, None
            self.connections += 1
            if not session.closed.done():
                self.connected.set()
            log.info("connected to %s:%d", self._broker.host, self._broker.port)
            return await asyncio.shield(session.closed)
        finally:
            self.connected.clear()
            self._session = None
            session.abort("given up")
            upkeep.cancel()

    def _presence(self, *, online: bool) -> bytes:
        presence = Presence(device=self._device, boot_id=self._boot_id, online=online, at_ms=self._clock.now_ms())
        return presence.model_dump_json().encode()

    def _receive(self, name: str, payload: bytes) -> None:
        try:
            message = _read(name, payload, self._device)
        except ValueError as error:  # pydantic's ValidationError is one
            self.unreadable += 1
            log.warning("dropped a message on %s that cannot be read: %s", name, error)
            return
        if isinstance(message, Desired):
            _put_newest(self.desired, message)
        else:
            _put_newest(self.acks, message)

    def _pause_s(self, failures: int) -> float:
        longest = min(self._times.backoff_max_s, self._times.backoff_min_s * 2.0 ** min(failures, 30))
        return self._rng.uniform(0.0, longest)

    async def _say_goodbye(self) -> None:
        session = self._session
        if session is None:
            return
        try:
            async with asyncio.timeout(2.0):
                await session.publish(topic(self._device, "presence"), self._presence(online=False), retain=True)
        except (LinkError, TimeoutError):
            return  # the last will says it
        session.close()


def _read(name: str, payload: bytes, device: str) -> Desired | Ack:
    addressed, _ = parse(name)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"expected at most {MAX_PAYLOAD_BYTES} bytes, got {len(payload)}")
    message = parse_message(payload)
    if not isinstance(message, Desired | Ack):
        raise ValueError(f"expected desired or ack, got {message.kind}")  # noqa: TRY004 - data, not a type of ours
    if {addressed, message.device} != {device}:
        raise ValueError(f"expected one for {device!r}, got one for {message.device!r}")
    return message


def _put_newest(queue: "asyncio.Queue[Item]", item: Item) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(item)
