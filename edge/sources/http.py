"""The prediction server: pictures and sounds come by HTTP, and the decision goes back to whoever sent them.

Rules:
- Each input goes the same way as a camera's: same record, slots, rollouts, thresholds; the answer is its decision, and
  it is on disk before it is sent.
- It listens on this machine alone unless the settings say otherwise, and then asks for a token.
- When the station stops, it takes nothing more in, decides what waits, and answers it.
"""

import dataclasses
import socket
import threading
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from edge.clock import new_boot_id
from edge.errors import SourceError
from edge.httpserver import make_server
from edge.settings import read_settings
from edge.sources.files import decode_window
from edge.sources.inbox import Inbox, Item
from edge.sources.interface import News
from edge.sources.settings import HttpSettings
from edge.values import Window
from edge.wire.rows import DecisionRow

if TYPE_CHECKING:
    from edge.clock import Clock
    from edge.sources import Seen

NEWS_EVERY_S = 300.0
_JOIN_S = 5.0
_GRACE_S = 2
"""For answers that are on their way when the server ends."""


class HttpSource:
    """Gives one window per input that was sent. `read` is used by one thread."""

    kind = "http"

    def __init__(self, settings: HttpSettings, clock: "Clock") -> None:
        """Begin to listen.

        Raises:
            SourceError: the port is taken or not allowed.
        """
        from edge.sources.httpapp import Expired, make_app

        self._clock = clock
        self._inbox = Inbox(clock, settings.max_waiting, settings.max_waiting_bytes)
        self._expired = Expired()
        self._told = 0
        self._news_due_s = clock.monotonic_s()
        try:
            listening = socket.create_server((settings.host, settings.port), backlog=128)
            # Else an answer of two segments waits 40 ms for the sender's delayed acknowledgement.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise SourceError(
                f"cannot listen at {where}: {error.strerror or error}", hint="set another port"
            ) from error
        self.port = int(listening.getsockname()[1])
        """The port it listens at, also where the settings leave the choice to the system (0)."""
        app = make_app(settings, self._inbox, self._expired, clock, new_boot_id()[:12])
        self._server = make_server(
            app,
            max_connections=settings.max_connections,
            refused=self._inbox.refuse,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=_GRACE_S,
        )
        run = partial(self._server.run, sockets=[listening])
        self._thread = threading.Thread(target=run, name="http-source", daemon=True)
        self._thread.start()

    def read(self, wait_s: float) -> Window | None:
        item = self._inbox.take(wait_s)
        if item is not None:
            return self._window(item)
        if not self._thread.is_alive():
            raise SourceError("the server has ended")
        return None

    @property
    def exhausted(self) -> bool:
        return self._inbox.exhausted

    @property
    def problem(self) -> str | None:
        return None

    def news(self) -> list[News]:
        """Return how many requests were refused or given up since it was told last, at most every `NEWS_EVERY_S`."""
        busy, late = self._inbox.refused, self._expired.count
        if busy + late == self._told or self._clock.monotonic_s() < self._news_due_s:
            return []
        self._told = busy + late
        self._news_due_s = self._clock.monotonic_s() + NEWS_EVERY_S
        detail = (
            f"since the start {busy} inputs or connections found no room (429), {late} were not decided in time (504)"
        )
        return [News("requests_refused", detail, "warning", {"busy": busy, "late": late})]

    def drain(self) -> None:
        """Take nothing more in; what waits can still be read."""
        self._inbox.drain()

    @property
    def waiting(self) -> int:
        return self._inbox.waiting

    def close(self) -> None:
        self._inbox.close()
        self._server.should_exit = True
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _window(self, item: Item) -> Window:
        began_s = self._clock.monotonic_s()
        window = decode_window(item.raw, name=item.name, source=self.kind, media_type=item.media_type, key=item.key)
        waited_ms = (began_s - item.arrived_s) * 1000
        return dataclasses.replace(window, live=True, waited_ms=waited_ms, answer=partial(self._answer, item, began_s))

    def _answer(self, item: Item, began_s: float, decision: DecisionRow | None) -> None:
        self._inbox.took(self._clock.monotonic_s() - began_s)
        item.settle(decision, "" if decision else "the decision found no room on disk; the safe action was taken")


def open_source(settings: Mapping[str, Any], *, seen: "Seen", clock: "Clock") -> HttpSource:  # noqa: ARG001
    """Open the source; its settings are `HttpSettings`.

    Raises:
        ConfigError: a setting is unknown or wrong.
        SourceError: it cannot listen.
    """
    return HttpSource(read_settings(HttpSettings, settings, where="source http"), clock)
