"""An actuator whose plant is not there yet: fails every action at once until it can be opened, so deciding goes on.

Rules:
- Opening is tried with back-off, for ever; once open, the actuator finds a plant that it has lost by itself.
- A wrong setting (`ConfigError`) is tried again at the longest pause: a device may be configured before its plant is.
"""

from collections.abc import Callable

from edge.actuators import CONFIRM_LATER
from edge.actuators.interface import Actuator
from edge.clock import Clock
from edge.errors import ActuatorError, ConfigError
from edge.wire.rows import DecisionRow

WAIT_MIN_S, WAIT_MAX_S = 0.5, 30.0


def open_or_later(kind: str, open_inner: Callable[[], Actuator], clock: Clock) -> Actuator:
    """Return the actuator itself, or, if it cannot be opened now, one that becomes it when it can."""
    try:
        return open_inner()
    except (ActuatorError, ConfigError) as error:
        return LaterActuator(kind, open_inner, clock, error)


class LaterActuator:
    """Stands for an actuator that could not be opened. Used by one thread."""

    def __init__(
        self, kind: str, open_inner: Callable[[], Actuator], clock: Clock, error: ActuatorError | ConfigError
    ) -> None:
        self.kind = kind
        self.deadline_ms = 1000.0
        # What is taken from the record stays there for it.
        self.confirms_later = kind in CONFIRM_LATER
        self._open_inner, self._clock = open_inner, clock
        self._inner: Actuator | None = None
        self._closed = False
        self._failures = 0
        self._why, self._next_try_s = "", 0.0
        self._failed(error)

    def look(self) -> str | None:
        self._try_open()
        return self._why if self._inner is None else self._inner.look()

    def act(self, decision: DecisionRow) -> str | None:
        if self.confirms_later and not self._closed and not self._try_open():
            return "queued"
        return self._there().act(decision)

    def safe(self, why: str) -> None:
        self._there().safe(why)

    def stop(self, why: str) -> None:
        self._there().stop(why)

    def release(self) -> None:
        self._there().release()

    def close(self) -> None:
        self._closed = True
        if self._inner is not None:
            self._inner.close()

    def _there(self) -> Actuator:
        if self._closed:
            raise ActuatorError("the actuator is closed", retry=False)
        if not self._try_open() or self._inner is None:
            raise ActuatorError(self._why)
        return self._inner

    def _try_open(self) -> bool:
        if self._inner is None and not self._closed and self._clock.monotonic_s() >= self._next_try_s:
            try:
                self._inner = self._open_inner()
                self.deadline_ms = self._inner.deadline_ms
            except (ActuatorError, ConfigError) as error:
                self._failed(error)
        return self._inner is not None

    def _failed(self, error: ActuatorError | ConfigError) -> None:
        self._failures += 1
        self._why = f"cannot open the {self.kind} actuator: {error}"
        longest = isinstance(error, ConfigError)
        pause_s = WAIT_MAX_S if longest else min(WAIT_MAX_S, WAIT_MIN_S * 2.0 ** min(self._failures - 1, 10))
        self._next_try_s = self._clock.monotonic_s() + pause_s
