"""One MQTT connection from CONNECT to its end, driven by asyncio's socket callbacks.

Rules:
- A session is used once: paho's own queues end with it, so nothing is sent twice behind the caller's back.
- MQTT 3.1.1, persistent session at the broker (`clean_session` off, unless asked for), client id = device.
- No thread of paho's runs: its `select()` loop dies in silence beyond 1,024 descriptors. Only the blocking
  connect (names, TCP, TLS) runs in a worker thread.
- Whatever a callback throws is logged and ends this session, never the process.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from edge.errors import LinkError
from edge.wire.http import BrokerAddress

log = logging.getLogger(__name__)

UPKEEP_S = 1.0
"""How often keep-alives are looked after; much finer than any keep-alive."""


@dataclass(frozen=True, slots=True)
class LinkTimes:
    """Waits of the link, in seconds."""

    keepalive_s: int = 30
    """A dead connection is noticed after at most twice this."""
    connect_s: float = 10.0
    """For each of: TCP and TLS, the broker's answer, the answer to the subscription."""
    publish_s: float = 20.0
    """For the broker's acknowledgement of one message."""
    backoff_min_s: float = 0.5
    backoff_max_s: float = 60.0
    """A thousand devices that lost their broker come back over a minute, not at once."""
    stable_s: float = 30.0
    """A connection that held this long resets the back-off."""


class Session:
    """One connection. Everything but `open`'s worker thread runs in the event loop."""

    def __init__(
        self,
        broker: BrokerAddress,
        client_id: str,
        times: LinkTimes,
        *,
        will: tuple[str, bytes] | None,
        on_message: Callable[[str, bytes], None],
        on_closed: Callable[[], None],
        tls: ssl.SSLContext | None = None,
        clean: bool = False,
    ) -> None:
        self._broker = broker
        self._times = times
        self._on_message = on_message
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._acks: dict[int, asyncio.Future[None]] = {}
        self._connack: asyncio.Future[None] = self._loop.create_future()
        self.closed: asyncio.Future[str] = self._loop.create_future()
        """Done when the connection is gone; its result says why."""
        self._socket: socket.socket | None = None
        """The socket that the event loop watches."""
        self._client = self._make_client(client_id, will, tls, clean=clean)

    async def open(self, subscriptions: list[str]) -> None:
        """Connect and subscribe; return when the broker has granted both.

        Raises:
            LinkError: it cannot be reached or refuses.
        """
        try:
            await asyncio.to_thread(self._client.connect, self._broker.host, self._broker.port, self._times.keepalive_s)
        except (OSError, ValueError) as error:
            raise self._failed(str(error)) from error
        self._attach()
        await self._within(self._connack, "the broker's answer to CONNECT")
        if subscriptions:
            _code, mid = self._client.subscribe([(name, 1) for name in subscriptions])
            await self._within(self._expect(mid), "the broker's answer to SUBSCRIBE")

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send with QoS 1; return when the broker has acknowledged.

        Raises:
            LinkError: the connection is gone, or the broker did not acknowledge in time.
        """
        if self.closed.done():
            raise self._failed(self.closed.result())
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise self._failed(mqtt.error_string(info.rc))
        try:
            async with asyncio.timeout(self._times.publish_s):
                await self._expect(info.mid)
        except TimeoutError as error:
            self.abort(f"no acknowledgement within {self._times.publish_s:g} s")
            raise self._failed(self.closed.result()) from error

    async def upkeep(self) -> str:
        """Look after keep-alives until the connection is gone; return why it went."""
        while not self.closed.done():
            self._guarded(self._client.loop_misc)
            await asyncio.wait([self.closed], timeout=UPKEEP_S)
        return self.closed.result()

    def abort(self, why: str) -> None:
        """Cut the connection without a goodbye: the broker publishes the last will."""
        self._end(why)
        if self._socket is None:
            return
        sock = self._socket
        self._detach()
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("the socket was gone already")
        sock.close()

    def close(self) -> None:
        """Say goodbye and cut the connection: the broker drops the last will."""
        self._guarded(self._client.disconnect)
        self._guarded(self._client.loop_write)
        self.abort("closed")

    # ── private, in call order ────────────────────────────────────────────────────────────────────────────────

    def _make_client(
        self, client_id: str, will: tuple[str, bytes] | None, tls: ssl.SSLContext | None, *, clean: bool
    ) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=clean, protocol=mqtt.MQTTv311
        )
        client.suppress_exceptions = True
        client.enable_logger(log)
        client.connect_timeout = self._times.connect_s
        if self._broker.username:
            client.username_pw_set(self._broker.username, self._broker.password)
        if will is not None:
            client.will_set(will[0], will[1], qos=1, retain=True)
        if tls is not None:
            client.tls_set_context(tls)
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_publish = self._published
        client.on_message = self._received
        client.on_disconnect = self._disconnected
        return client

    def _attach(self) -> None:
        """Hand the socket to the event loop. Only now: `connect` calls back from its own thread."""
        sock: Any = self._client.socket()
        if sock is None:
            raise self._failed("the connection was closed at once")
        self._socket = sock
        self._client.on_socket_close = lambda *_: self._detach()
        self._client.on_socket_register_write = lambda *_: self._watch_writes()
        self._client.on_socket_unregister_write = lambda *_: self._unwatch_writes()
        self._loop.add_reader(sock, self._readable)
        if self._client.want_write():
            self._watch_writes()

    def _watch_writes(self) -> None:
        if self._socket is not None:
            self._loop.add_writer(self._socket, self._writable)

    def _unwatch_writes(self) -> None:
        if self._socket is not None:
            self._loop.remove_writer(self._socket)

    def _detach(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = None

    def _readable(self) -> None:
        self._guarded(self._client.loop_read)
        # What TLS has decrypted already does not wake the selector again.
        while isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            self._guarded(self._client.loop_read)

    def _writable(self) -> None:
        self._guarded(self._client.loop_write)

    def _guarded(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:
            log.exception("unexpected error in the MQTT client")
            self.abort(f"{type(error).__name__}: {error}")

    async def _within(self, answer: "asyncio.Future[None]", what: str) -> None:
        try:
            async with asyncio.timeout(self._times.connect_s):
                await answer
        except TimeoutError as error:
            self.abort(f"{what} did not come within {self._times.connect_s:g} s")
            raise self._failed(self.closed.result()) from error

    def _expect(self, mid: int | None) -> "asyncio.Future[None]":
        answer: asyncio.Future[None] = self._loop.create_future()
        if mid is None or self.closed.done():
            answer.set_exception(self._failed("the connection is gone"))
        else:
            self._acks[mid] = answer
        return answer

    def _connected(self, _client: mqtt.Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any) -> None:
        if code.is_failure:
            self.abort(f"the broker refuses: {code}")
        elif not self._connack.done():
            self._connack.set_result(None)

    def _subscribed(
        self, _client: mqtt.Client, _data: Any, mid: int, codes: list[ReasonCode], _properties: Any
    ) -> None:
        refused = next((code for code in codes if code.is_failure), None)
        if refused is not None:
            self.abort(f"the broker refuses a subscription: {refused}")
        else:
            self._settle(mid)

    def _published(self, _client: mqtt.Client, _data: Any, mid: int, code: ReasonCode, _properties: Any) -> None:
        if code.is_failure:
            self.abort(f"the broker refuses a message: {code}")
        else:
            self._settle(mid)

    def _received(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            self._on_message(message.topic, bytes(message.payload))
        except Exception:
            log.exception("a message on %s could not be handled", message.topic)

    def _disconnected(self, _client: mqtt.Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any) -> None:
        self._end(f"connection lost: {code}")

    def _settle(self, mid: int) -> None:
        answer = self._acks.pop(mid, None)
        if answer is not None and not answer.done():
            answer.set_result(None)

    def _end(self, why: str) -> None:
        if not self.closed.done():
            self.closed.set_result(why)
            self._on_closed()
        waiting = [self._connack, *self._acks.values()]
        self._acks.clear()
        for answer in waiting:
            if not answer.done():
                answer.set_exception(self._failed(why))
                answer.exception()  # looked at, so that one nobody waits for is not reported as forgotten

    def _failed(self, why: str) -> LinkError:
        where = f"{self._broker.host}:{self._broker.port}"
        return LinkError(f"broker {where}: {why}", hint="look at the network, the broker's address and the credentials")
