"""Publishes actions to a topic of the plant's own broker, for a PLC, a gateway or a line's control that listens there.

Rules:
- QoS 1: an action is done when the broker has acknowledged it, and has failed if it did not in time. Nothing is sent
  again later: a word about a part that is gone moves the wrong one.
- `TOPIC/status` is retained: `{"online": true}`, or false by the last will when this box or its network is gone.
- The connection has a thread and an event loop of its own, and is made again with back-off for ever.
"""

import asyncio
import json
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from edge.actuators.interface import Place
from edge.actuators.settings import MqttSettings
from edge.errors import ActuatorError, LinkError
from edge.mqttsession import LinkTimes, Session
from edge.settings import read_settings
from edge.tls import context
from edge.wire.http import BrokerAddress
from edge.wire.rows import DecisionRow

if TYPE_CHECKING:
    from edge.clock import Clock

BACKOFF_MIN_S, BACKOFF_MAX_S = 0.25, 10.0
CLOSE_S = 2.0
"""Longest wait for the goodbye."""


class MqttActuator:
    """Publishes `{"decision", "device", "station", "verdict", "action", "label", …}` per action."""

    kind = "mqtt"
    confirms_later = False

    def __init__(self, settings: MqttSettings, clock: "Clock", place: Place) -> None:
        self._s, self._clock, self._place = settings, clock, place
        self.deadline_ms = settings.timeout_ms
        self.problem: str | None = f"broker {settings.host}:{settings.port}: not connected yet"
        self._session: Session | None = None
        self._tried = threading.Event()
        self._closed = False
        # Read here, so that a file that is not there is an error at the start.
        self._broker = _broker(settings)
        self._tls = context(ca=settings.ca_file) if settings.tls else None
        self._loop = asyncio.new_event_loop()
        self._work: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="actuator-mqtt", daemon=True)
        self._thread.start()
        # The first part must not be lost to a connection that is just being made.
        self._tried.wait(settings.timeout_ms / 1000)

    def look(self) -> str | None:
        return self.problem

    def act(self, decision: DecisionRow) -> str | None:
        self._publish(
            {
                "decision": decision.seq,
                "boot_id": decision.boot_id,
                "verdict": decision.verdict,
                "action": decision.action,
                "label": decision.label,
                "reason": decision.reason,
                "input": decision.input.name,
                "decided_at_ms": decision.at_ms,
            }
        )
        return None

    def safe(self, why: str) -> None:
        self._publish({"decision": None, "action": "safe", "why": why})

    def stop(self, why: str) -> None:
        self._publish({"decision": None, "action": "stop", "why": why})

    def release(self) -> None:
        self._publish({"decision": None, "action": "release"})

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.call_soon_threadsafe(lambda: self._work and self._work.cancel())
        self._thread.join(CLOSE_S + 1)

    def _publish(self, entry: dict[str, Any]) -> None:
        if self._closed:
            raise ActuatorError("the actuator is closed", retry=False)
        session = self._session
        if session is None:
            raise ActuatorError(self.problem or f"{self._where}: connecting")
        entry = {"device": self._place.device, "station": self._place.station, "at_ms": self._clock.now_ms(), **entry}
        sent: Future[None] = asyncio.run_coroutine_threadsafe(
            session.publish(self._s.topic, json.dumps(entry).encode()), self._loop
        )
        try:
            sent.result(self._s.timeout_ms / 1000)
        except TimeoutError as error:
            # A message that is still on its way would arrive behind its part.
            why = f"no acknowledgement within {self._s.timeout_ms:g} ms"
            self._session, self.problem = None, f"{self._where}: {why}"
            self._loop.call_soon_threadsafe(session.abort, why)
            raise ActuatorError(f"{self._where}: {why}") from error
        except LinkError as error:
            raise ActuatorError(str(error), hint=error.hint) from error

    @property
    def _where(self) -> str:
        return f"broker {self._s.host}:{self._s.port}"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._work = self._loop.create_task(self._stay_connected())
        try:
            self._loop.run_until_complete(self._work)
        except asyncio.CancelledError:
            self.problem = "closed"
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _stay_connected(self) -> None:
        pause_s = BACKOFF_MIN_S
        while True:
            if await self._connected_once():
                pause_s = BACKOFF_MIN_S
            self._tried.set()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, BACKOFF_MAX_S)

    async def _connected_once(self) -> bool:
        """Connect and stay until the connection is gone; return whether there was one."""
        status = f"{self._s.topic}/status"
        timeout_s = self._s.timeout_ms / 1000
        session = Session(
            self._broker,
            f"lineside-{self._place.device}-{self._place.station}",
            LinkTimes(keepalive_s=5, connect_s=max(1.0, timeout_s), publish_s=1 + timeout_s),
            will=(status, json.dumps({"online": False}).encode()),
            on_message=lambda *_: None,
            on_closed=self._gone,
            tls=self._tls,
        )
        try:
            await session.open([])
            await session.publish(status, json.dumps({"online": True}).encode(), retain=True)
            self._session, self.problem = session, None
            self._tried.set()
            self.problem = f"{self._where}: {await session.upkeep()}"
            return True
        except LinkError as error:
            self.problem = str(error)
            return False
        except asyncio.CancelledError:
            await self._say_goodbye(session, status)
            raise
        finally:
            self._gone()
            session.abort("closed")

    def _gone(self) -> None:
        self._session = None

    async def _say_goodbye(self, session: Session, status: str) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await session.publish(status, json.dumps({"online": False}).encode(), retain=True)
                session.close()
        except (LinkError, TimeoutError):
            # The last will says it.
            return


def open_actuator(settings: Mapping[str, Any], *, clock: "Clock", place: Place) -> MqttActuator:
    """Begin to connect; a broker that is not there is waited for.

    Raises:
        ConfigError: a setting is unknown or wrong.
        ActuatorError: a file of the settings cannot be read.
    """
    read = read_settings(MqttSettings, settings, where="actuator mqtt")
    try:
        return MqttActuator(read, clock, place)
    except OSError as error:
        raise ActuatorError(f"actuator mqtt: {error}") from error


def probe(settings: Mapping[str, Any]) -> str:
    """Return whether the broker lets this box in, under another name than the daemon's and without a word to the plant.

    Raises:
        ConfigError: a setting is unknown or wrong.
        ActuatorError: the broker cannot be reached or refuses.
    """
    read = read_settings(MqttSettings, settings, where="actuator mqtt")
    try:
        asyncio.run(_knock(read))
    except (OSError, LinkError) as error:
        raise ActuatorError(str(error), hint=getattr(error, "hint", "")) from error
    return f"broker {read.host}:{read.port} lets this box in"


async def _knock(settings: MqttSettings) -> None:
    name = f"lineside-check-{uuid.uuid4().hex[:8]}"
    tls = context(ca=settings.ca_file) if settings.tls else None
    session = Session(
        _broker(settings),
        name,
        LinkTimes(connect_s=5.0),
        will=None,
        on_message=lambda *_: None,
        on_closed=lambda: None,
        tls=tls,
        clean=True,
    )
    try:
        await session.open([])
    finally:
        session.close()


def _broker(settings: MqttSettings) -> BrokerAddress:
    password = settings.password_file.read_text().strip() if settings.password_file else ""
    return BrokerAddress(
        host=settings.host, port=settings.port, username=settings.username, password=password, tls=settings.tls
    )
