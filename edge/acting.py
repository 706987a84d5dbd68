"""Carries out what was decided and says what became of it: a driver between the pipeline and the actuator.

Rules:
- Refused, late or gone: the outcome says so, and the station's safe action is tried at once.
- Trouble is an alarm once as it begins and an event once as it ends, never one for each part.
- The outcome of an action that was carried out may be recorded together with the decision after it, at half the price;
  whoever drives this asks for it (`owed`) or has it written (`settle`).
- An actuator that takes its actions from the record also writes their outcomes; here it is only woken.
"""

import contextlib
import time
from typing import Literal, Protocol

from edge.actuators.hysteresis import Hysteresis
from edge.actuators.interface import Actuator
from edge.clock import Clock
from edge.errors import ActuatorError, StoreError
from edge.observe import EventSink
from edge.wire.rows import DecisionRow, OutcomeRow


class OutcomeStore(EventSink, Protocol):
    """The part of the record that is needed here."""

    def append_outcome(self, row: OutcomeRow) -> None: ...


class Acting:
    """The actuator of one station, watched. Belongs to the pipeline's thread."""

    def __init__(self, actuator: Actuator, store: OutcomeStore, clock: Clock, boot_id: str, station: str) -> None:
        self._actuator, self._store, self._clock = actuator, store, clock
        self._boot_id, self._station = boot_id, station
        self._trouble = Hysteresis()
        self._only_seen = False
        """Whether the trouble was seen without an action, so that it may end without one."""
        self.problem: str | None = None
        """What keeps actions from being carried out, if anything; also read from other threads."""
        self.owed: OutcomeRow | None = None
        """An outcome that is not on record yet."""

    def act(self, decision: DecisionRow) -> None:
        """Carry out the action; its outcome is recorded if it failed, else `owed`."""
        if decision.action == "none":
            return
        actuator = self._actuator
        if actuator.confirms_later:
            actuator.act(decision)
            return
        started_s, why, detail = time.perf_counter(), None, None
        try:
            detail = actuator.act(decision)
        except ActuatorError as error:
            why = str(error)
        took_ms = (time.perf_counter() - started_s) * 1000
        if why is None and took_ms > actuator.deadline_ms:
            why = f"late: took {took_ms:.0f} ms, deadline {actuator.deadline_ms:.0f} ms"
        if why is not None:
            detail = self._failed(decision, why)
        elif self.problem is not None:
            self._worked()
        self.owed = OutcomeRow(
            seq=1,
            decision_seq=decision.seq,
            at_ms=self._clock.now_ms(),
            state="done" if why is None else "failed",
            actuator=actuator.kind,
            detail=detail,
            latency_ms=took_ms,
        )
        if why is not None:
            self.settle()

    def settle(self) -> None:
        """Record the outcome that is owed."""
        owed, self.owed = self.owed, None
        if owed is None:
            return
        # Without room the decision stands with its outcome open; the next start tells it as unknown.
        with contextlib.suppress(StoreError):
            self._store.append_outcome(owed)

    def safe(self, why: str) -> None:
        """Take the safe action for a part that has no decision on record."""
        try:
            self._actuator.safe(why)
        except ActuatorError as error:
            self._begins(str(error))

    def look(self) -> None:
        """See whether the plant is there while there is nothing to do."""
        why = self._actuator.look()
        if self._actuator.confirms_later:
            self.problem = why
        elif why is not None:
            self._only_seen = self._only_seen or self.problem is None
            self._begins(why)
        elif self._only_seen:
            self._worked()

    def _failed(self, decision: DecisionRow, why: str) -> str:
        """Take the safe action in place of the one that failed; return all of it in words."""
        detail = why
        if decision.action != "safe":
            try:
                self._actuator.safe(f"decision {decision.seq}: {decision.action} failed: {why}")
                detail = f"{why}; took the safe action"
            except ActuatorError as error:
                detail = f"{why}; the safe action failed too: {error}"
        self._only_seen = False
        self._begins(why)
        return detail

    def _begins(self, why: str) -> None:
        self.problem = why
        if self._trouble.failed():
            # Not told for want of room: the next failure tells it.
            self._trouble.failing = self._tell("actuator_failure_raised", "alarm", why)

    def _worked(self) -> None:
        told = self._trouble.failing
        if self._trouble.worked() or not told:
            self.problem, self._only_seen = None, False
            if told:
                self._tell("actuator_failure_cleared", "info", "actions are carried out again")

    def _tell(self, name: str, severity: Literal["info", "alarm"], detail: str) -> bool:
        try:
            self._store.append_event(
                name,
                boot_id=self._boot_id,
                severity=severity,
                station=self._station,
                detail=detail,
                data={"actuator": self._actuator.kind},
            )
        except StoreError:
            return False
        return True
