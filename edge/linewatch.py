"""Holds a station to its rules: stops the line and lets it run again, raises and clears alarms, survives restarts.

Rules:
- A stop is written down first, then the plant is stopped; a release is given to the plant first, then written down. A
  power cut in between ends in a line that stands and says so, which a person can acknowledge once more. A record that
  cannot be written stops no stop.
- While the line stands, every part takes the station's safe action, and its record says why.
- A stop or release that the plant does not take is tried again until it does.
"""

from dataclasses import replace
from typing import Protocol

from pydantic import ValidationError

from edge import stationrules
from edge.actuators.interface import Actuator
from edge.clock import Clock
from edge.errors import ActuatorError, StoreError
from edge.observe import EventSink
from edge.stationrules import Change, LineRules, LineState
from edge.values import Judgement, StationSettings
from edge.wire.base import WireModel
from edge.wire.rows import DecisionRow
from edge.wire.terms import Action

LINE_META = "line."
"""Where a station's state lies in the store, the station's name behind it."""
SAVE_REFERENCE_S = 60.0
"""How often a reference part that is rejected is written down: where any reject is one, that may be every second."""


class LineStore(EventSink, Protocol):
    """The part of the record that is needed here."""

    def get_meta(self, key: str) -> str | None: ...

    def set_meta(self, key: str, value: str) -> None: ...

    def last_decisions(self, n: int) -> list[DecisionRow]: ...


class SavedLine(WireModel):
    """What is written down of a station's line."""

    stop: str | None = None
    """Names the stop that stands, for the person who acknowledges it."""
    why: str = ""
    reference_at_ms: int | None = None


class LineWatch:
    """The line of one station. Belongs to the pipeline's thread."""

    def __init__(
        self, rules: LineRules, station: str, store: LineStore, actuator: Actuator, clock: Clock, boot_id: str
    ) -> None:
        self._rules, self._station = rules, station
        self._store, self._actuator, self._clock, self._boot_id = store, actuator, clock, boot_id
        self._saved = read_line(store, station)
        self._unsaved = False
        self._stop_taken = False
        self._state = self._begin()
        if self._saved.stop is not None:
            self._take_stop()
            self._tell("line_stop_raised", f"still, from before the restart: {self._saved.why}")

    @property
    def stopped(self) -> str | None:
        """Why the line stands, None if it runs; also read from other threads."""
        return self._saved.why if self._saved.stop is not None else None

    def held(self, judgement: Judgement, settings: StationSettings) -> Judgement:
        """Return the judgement, with the safe action instead of its own while the line stands."""
        self.look(settings)
        if self._saved.stop is None or judgement.action == "none":
            return judgement
        words = f"the line is stopped: {self._saved.why}"
        action: Action = "safe"
        detail = f"{judgement.detail}; {words}" if judgement.detail else words
        return replace(judgement, action=action, detail=detail)

    def decided(self, decision: DecisionRow) -> None:
        """Take note of a part that was decided and acted on."""
        self._state, changes = stationrules.decided(
            self._state,
            self._rules,
            decision.verdict,
            decision.action,
            decision.input.name,
            self._clock.monotonic_s(),
        )
        self._note_reference()
        for change in changes:
            self._apply(change, decision.seq)

    def look(self, settings: StationSettings) -> None:
        """See whether the stop was acknowledged and whether time has run out; also while no part comes."""
        if self._saved.stop is not None:
            if not self._stop_taken:
                self._take_stop()
            if settings.acknowledged == self._saved.stop:
                self._release()
        self._state, changes = stationrules.waited(self._state, self._rules, self._clock.monotonic_s())
        for change in changes:
            self._apply(change, None)
        if self._unsaved:
            self._save(self._saved)

    def _begin(self) -> LineState:
        """Return the state as the record has it: rejects in a row, and the age of the last reference part."""
        now_s, saved = self._clock.monotonic_s(), self._saved
        at_ms = saved.reference_at_ms
        age_s = 0.0 if at_ms is None else max(0.0, (self._clock.now_ms() - at_ms) / 1000)
        state = LineState(reference_at_s=now_s - age_s, stopped=saved.stop is not None)
        if self._rules.stop_after_rejects is None or state.stopped:
            return state
        quiet = replace(self._rules, reference_every_s=None)
        own = (row for row in self._store.last_decisions(20 * self._rules.stop_after_rejects))
        for row in reversed([row for row in own if row.station == self._station and row.action != "safe"]):
            state, _ = stationrules.decided(state, quiet, row.verdict, row.action, row.input.name, now_s)
            if state.stopped:
                # That stop was acknowledged, or it would be on record.
                state, _ = stationrules.acknowledged(state)
        return state

    def _apply(self, change: Change, seq: int | None) -> None:
        if change == "stopped":
            why = f"{self._rules.stop_after_rejects} rejects in a row"
            self._stop_taken = False
            self._save(self._saved.model_copy(update={"stop": str(seq), "why": why}))
            self._take_stop()
            if self._saved.why != why:
                self._save(self._saved)
            self._tell("line_stop_raised", f"{why}; acknowledge it at the device: lineside-edge acknowledge")
        elif change == "reference_missing":
            self._tell("reference_part_missing_raised", self._missing())
        elif change == "reference_seen":
            self._tell("reference_part_missing_cleared", "a reference part was rejected")

    def _missing(self) -> str:
        every_s, now_s = self._rules.reference_every_s or 0.0, self._clock.monotonic_s()
        if now_s - self._state.reference_at_s > every_s:
            return f"no reference part was rejected within {every_s / 60:g} min"
        return "a reference part was not rejected"

    def _take_stop(self) -> None:
        try:
            self._actuator.stop(self._saved.why)
            self._stop_taken = True
        except ActuatorError as error:
            self._saved = self._saved.model_copy(update={"why": f"{self._why()}; the plant does not stop: {error}"})

    def _why(self) -> str:
        return self._saved.why.partition("; the plant does not stop")[0]

    def _release(self) -> None:
        try:
            self._actuator.release()
        except ActuatorError:
            # It stands; the next look tries again.
            return
        self._state, _ = stationrules.acknowledged(self._state)
        self._stop_taken = False
        self._save(self._saved.model_copy(update={"stop": None, "why": ""}))
        self._tell("line_stop_cleared", "acknowledged")

    def _note_reference(self) -> None:
        if self._rules.reference_every_s is None:
            return
        ago_s = self._clock.monotonic_s() - self._state.reference_at_s
        at_ms = self._clock.now_ms() - round(1000 * ago_s)
        if self._saved.reference_at_ms is None or at_ms - self._saved.reference_at_ms >= 1000 * SAVE_REFERENCE_S:
            self._save(self._saved.model_copy(update={"reference_at_ms": at_ms}))

    def _save(self, saved: SavedLine) -> None:
        self._saved, self._unsaved = saved, False
        try:
            self._store.set_meta(LINE_META + self._station, saved.model_dump_json())
        except StoreError:
            self._unsaved = True

    def _tell(self, name: str, detail: str) -> None:
        try:
            self._store.append_event(
                name,
                boot_id=self._boot_id,
                severity="alarm" if name.endswith("_raised") else "info",
                station=self._station,
                detail=detail,
                data={"stop": self._saved.stop},
            )
        except StoreError:
            # No room: the report says that the line stands, and why.
            return


def read_line(store: LineStore, station: str) -> SavedLine:
    """Return what is on record of a station's line."""
    saved = store.get_meta(LINE_META + station)
    if saved is None:
        return SavedLine()
    try:
        return SavedLine.model_validate_json(saved)
    except ValidationError:
        # Damaged on disk: a line that may stand must not be taken for one that runs.
        return SavedLine(stop="damaged", why="what the record says of the line cannot be read")
