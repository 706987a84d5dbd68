"""The control plane's MQTT client: paho driven by the event loop, with its own reconnecting.

Rules:
- Every call into paho's client happens in the event loop's thread, except the connect itself, which may block.
- Each connection has a client of its own: nothing queued on a dead one is sent on the next.
- A message is acknowledged to the broker only when ingest is done with it, so the broker bounds what is under way.
- Copies that share messages speak MQTT 5, and each message goes to one of them; a single control plane needs 3.1.1.
- Each channel has a session of its own. Brokers bound what is under way by session: nats-server counts a session's
  messages together but holds back each subscription's alone, and what is too much for the session comes 30 s later.
- Whenever the broker is reached, `on_connected` is called: what is retained there may have been forgotten.
"""

import asyncio
import logging
import random
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from cloud.ingest import Incoming
from edge.wire.topics import FROM_DEVICE, Channel, every_device

log = logging.getLogger(__name__)

KEEPALIVE_S = 30
CONNECT_TIMEOUT_S = 10.0
MAX_INFLIGHT = 200
MAX_WAITING = 50_000
"""Messages that are published and not yet taken: room for a desired state of every device, but not without end."""


@dataclass(frozen=True)
class Login:
    """Where and as whom to connect."""

    host: str
    port: int
    username: str
    """Empty where a certificate says it."""
    password: str | None
    tls: ssl.SSLContext | None = None
    """None for plain text."""
    share: str = ""
    """Name of the group of copies among which the broker divides the messages (MQTT 5, 4.8.2); none if empty."""


class Link:
    """The connection to the broker."""

    def __init__(
        self,
        login: Callable[[], Login],
        rng: random.Random,
    ) -> None:
        self._login = login
        self._rng = rng
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sessions: list[_Session] = []
        self.connected = False

    def publish(self, topic_name: str, payload: bytes, *, retain: bool) -> None:
        """Hand a message to the broker from any thread; dropped if there is none: acks and desired states are
        sent again."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        try:
            loop.call_soon_threadsafe(self._publish, topic_name, payload, retain)
        except RuntimeError:
            log.debug("the event loop has ended; dropped a message on %s", topic_name)

    async def run(self, on_message: Callable[[Incoming], None], on_connected: Callable[[], None]) -> None:
        """Keep connected until cancelled.

        Args:
            on_message: takes each message, in the event loop; must return at once.
            on_connected: called in a thread whenever the broker is reached.
        """
        self._loop = asyncio.get_running_loop()
        wait_s = 0.1
        while True:
            login = self._login()
            self._sessions = [_Session(login, channel, on_message) for channel in FROM_DEVICE]
            try:
                await asyncio.gather(*(session.connect() for session in self._sessions))
                log.info("connected to the broker at %s:%d", login.host, login.port)
                self.connected, wait_s = True, 0.1
                await asyncio.to_thread(on_connected)
                reason = await self._first_end()
            except OSError as error:
                reason = str(error)
            finally:
                self.connected = False
                for session in self._sessions:
                    session.close()
            wait_s = min(wait_s * 2, 10.0)
            log.warning("no connection to the broker at %s:%d: %s", login.host, login.port, reason)
            await asyncio.sleep(wait_s * self._rng.uniform(0.5, 1.0))

    def _publish(self, topic_name: str, payload: bytes, retain: bool) -> None:  # noqa: FBT001  (call_soon has no names)
        if self.connected:
            self._sessions[0].publish(topic_name, payload, retain=retain)

    async def _first_end(self) -> str:
        ends = [session.ended for session in self._sessions]
        ended, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return ended.pop().result()


def subscription(channel: Channel, share: str) -> str:
    """Return what to subscribe to for a channel of all devices, alone or as one of a group of copies."""
    return f"$share/{share}/{every_device(channel)}" if share else every_device(channel)


def _session(login: Login) -> dict[str, Any]:
    """Return the arguments of MQTT 5's CONNECT: nothing is kept while we are gone, so many under way."""
    if not login.share:
        return {}
    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0
    properties.ReceiveMaximum = MAX_INFLIGHT
    return {"clean_start": True, "properties": properties}


class _Session:
    """One connection that hears one channel of all devices, from connect to its end."""

    def __init__(self, login: Login, channel: Channel, on_message: Callable[[Incoming], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._login = login
        self._channel = channel
        self._on_message = on_message
        self._subscribed: asyncio.Future[None] = self._loop.create_future()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self._client = self._make_client(login)
        self._descriptor: int | None = None
        self._misc: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Connect and subscribe.

        Raises:
            OSError: that did not work, and why.
        """
        login = self._login
        await asyncio.to_thread(self._client.connect, login.host, login.port, KEEPALIVE_S, **_session(login))
        socket = self._client.socket()
        if socket is None:
            raise OSError("the broker closed the connection")
        self._descriptor = socket.fileno()
        self._client.on_socket_close = self._socket_closed
        self._client.on_socket_register_write = lambda *_: self._write_when_ready()
        self._client.on_socket_unregister_write = lambda *_: self._written()
        self._loop.add_reader(self._descriptor, self._read)
        if self._client.want_write():
            self._write_when_ready()
        self._misc = self._loop.create_task(self._keep_alive(), name="mqtt-keepalive")
        done, _ = await asyncio.wait(
            (self._subscribed, self.ended), timeout=CONNECT_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
        )
        if self._subscribed not in done:
            raise OSError(self.ended.result() if self.ended.done() else "the broker does not answer")

    def publish(self, topic_name: str, payload: bytes, *, retain: bool) -> None:
        """Send a message with QoS 1."""
        sent = self._client.publish(topic_name, payload, qos=1, retain=retain)
        if sent.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            log.warning("the broker is too slow; dropped a message on %s", topic_name)

    def close(self) -> None:
        """End the connection."""
        if self._misc is not None:
            self._misc.cancel()
        self._client.on_disconnect = None
        self._client.disconnect()
        if self._descriptor is not None:
            self._socket_closed()
        for future in (self._subscribed, self.ended):
            future.cancel()

    def _make_client(self, login: Login) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"lineside-cloud-{secrets.token_hex(8)}",
            clean_session=None if login.share else True,
            protocol=mqtt.MQTTv5 if login.share else mqtt.MQTTv311,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.suppress_exceptions = True  # else one would stop the reading in silence; ours are logged below
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(MAX_INFLIGHT)
        client.max_queued_messages_set(MAX_WAITING)
        if login.username:
            client.username_pw_set(login.username, login.password)
        if login.tls is not None:
            client.tls_set_context(login.tls)
        client.on_connect = self._connected
        client.on_subscribe = self._granted
        client.on_message = self._received
        client.on_disconnect = lambda _c, _u, _f, reason, _p: self._end(str(reason))
        return client

    def _connected(self, client: mqtt.Client, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._end(f"the broker refused: {reason}")
        else:
            client.subscribe([(subscription(self._channel, self._login.share), 1)])

    def _granted(self, _client: mqtt.Client, _userdata: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._end("the broker refused the subscription: its rules for our user do not allow it")
        elif not self._subscribed.done():
            self._subscribed.set_result(None)

    def _received(self, client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        def release() -> None:
            if not self.ended.done():
                client.ack(message.mid, message.qos)

        try:
            self._on_message(Incoming(message.topic, bytes(message.payload), bool(message.retain), release))
        except Exception:
            log.exception("a message was not taken")

    def _read(self) -> None:
        self._after(self._client.loop_read())
        while (socket := self._client.socket()) is not None and getattr(socket, "pending", int)():
            self._after(self._client.loop_read())  # TLS holds what the selector cannot see

    def _write(self) -> None:
        self._after(self._client.loop_write())

    def _after(self, code: MQTTErrorCode) -> None:
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._end(mqtt.error_string(code))

    def _write_when_ready(self) -> None:
        if self._descriptor is not None:
            self._loop.add_writer(self._descriptor, self._write)

    def _written(self) -> None:
        if self._descriptor is not None:
            self._loop.remove_writer(self._descriptor)

    def _socket_closed(self, *_: Any) -> None:
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
            self._descriptor = None

    async def _keep_alive(self) -> None:
        while not self.ended.done():
            await asyncio.sleep(1)
            self._after(self._client.loop_misc())

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)
