"""What actuators with outputs have in common: which output an action switches, pulses, the held stop, one user a time.

Rules:
- A pulse ends by a timer, so deciding goes on meanwhile; a second one of the same output makes it longer.
- An output that cannot be switched off is tried again until it can, and until then no action is taken for done.
- An action that nothing is wired for is taken as done, and says so; a safe action is not: nobody made the part safe.
- Close switches off what a pulse holds on. A held stop stays as it is: only a person lets a stopped line run.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from edge.actuators.interface import Output
from edge.actuators.timers import Timers
from edge.errors import ActuatorError
from edge.wire.rows import DecisionRow

OFF_AGAIN_S = 0.5
"""Pause between two tries to switch an output off."""


class Wires(Protocol):
    """Outputs that can be switched. Used by one thread at a time."""

    @property
    def problem(self) -> str | None:
        """Why they cannot be reached, None if they can."""
        ...

    def switch(self, output: Output, *, on: bool) -> None:
        """Switch one output.

        Raises:
            ActuatorError: it could not be switched.
        """
        ...

    def upkeep(self) -> None:
        """Look after the connection; called now and then. Raises nothing."""
        ...

    def close(self) -> None:
        """Give them back. Safe to call twice."""
        ...


class WiredActuator:
    """Switches one output an action."""

    confirms_later = False

    def __init__(
        self,
        kind: str,
        wires: Wires,
        outputs: Mapping[Output, object],
        *,
        pulse_ms: float,
        deadline_ms: float,
        upkeep_s: float | None = None,
    ) -> None:
        """Take over `wires`.

        Args:
            kind: name of the actuator.
            wires: the way to the outputs.
            outputs: which of them are wired.
            pulse_ms: how long an output stays on; 0 if the plant switches it off.
            deadline_ms: longest wait of an action.
            upkeep_s: how often the wires are looked after; None for never.
        """
        self.kind = kind
        self.deadline_ms = deadline_ms
        self._wires, self._outputs = wires, outputs
        self._pulse_s = pulse_ms / 1000
        self._upkeep_s = upkeep_s
        self._lock = threading.Lock()
        self._stuck: dict[Output, str] = {}
        self._closed = False
        self._timers = Timers(f"actuator-{kind}")
        if upkeep_s is not None:
            self._timers.after(upkeep_s, "upkeep", self._upkeep)

    def look(self) -> str | None:
        return next(iter(self._stuck.values()), None) or self._wires.problem

    def act(self, decision: DecisionRow) -> str | None:
        if decision.action == "none":
            return None
        return self._pulse(decision.action)

    def safe(self, why: str) -> None:  # noqa: ARG002 - an output has no words
        self._pulse("safe")

    def stop(self, why: str) -> None:
        if "stop" not in self._outputs:
            self.safe(why)
            return
        with self._alone():
            self._wires.switch("stop", on=True)

    def release(self) -> None:
        if "stop" in self._outputs:
            with self._alone():
                self._wires.switch("stop", on=False)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        ending = [output for output in self._outputs if self._timers.forget(output)]
        self._timers.close()
        try:
            for output in ending:
                self._wires.switch(output, on=False)
        except ActuatorError:
            # The plant is gone; what comes next switches everything off before it begins.
            return
        finally:
            self._wires.close()

    def _pulse(self, output: Output) -> str | None:
        with self._alone():
            if self._stuck:
                raise ActuatorError("; ".join(self._stuck.values()))
            if output not in self._outputs:
                if output == "safe":
                    raise ActuatorError("nothing is wired for safe", hint="wire the output that makes a part safe")
                return f"nothing is wired for {output}"
            self._wires.switch(output, on=True)
            if self._pulse_s:
                self._timers.after(self._pulse_s, output, lambda: self._end_pulse(output))
        return None

    def _end_pulse(self, output: Output) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                self._wires.switch(output, on=False)
            except ActuatorError as error:
                self._stuck[output] = f"{output} could not be switched off: {error}"
                self._timers.after(OFF_AGAIN_S, output, lambda: self._end_pulse(output))
            else:
                self._stuck.pop(output, None)

    def _upkeep(self) -> None:
        with self._lock:
            if not self._closed and self._upkeep_s is not None:
                self._wires.upkeep()
                self._timers.after(self._upkeep_s, "upkeep", self._upkeep)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._closed:
            raise ActuatorError("the actuator is closed", retry=False)
        if not self._lock.acquire(timeout=self.deadline_ms / 1000):
            raise ActuatorError(f"the way to the plant was busy for {self.deadline_ms:g} ms: {self._wires.problem}")
        try:
            yield
        finally:
            self._lock.release()
