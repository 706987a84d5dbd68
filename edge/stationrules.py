"""Rules of a station that need no model: pure, from what was decided and the time to what changed.

Rules:
- N rejects in a row stop the line until a person acknowledges. A part that passes ends a row; one that is deferred
  neither counts nor ends it. Only rejects that the station itself decides count, and reference parts never do.
- A reference part, known to be bad, must be rejected at least every so often. One that is not rejected is an alarm at
  once; so is none within the time, whether or not parts come. Without a name to tell it by, any reject counts as one.
"""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from edge.wire.terms import Action, Verdict

Change = Literal["stopped", "released", "reference_missing", "reference_seen"]


@dataclass(frozen=True)
class LineRules:
    """What a station asks for; None is nothing."""

    stop_after_rejects: int | None = None
    reference_every_s: float | None = None
    reference_name: str | None = None
    """Pattern (`*`, `?`) of a reference part's name at its source."""

    @property
    def any(self) -> bool:
        return self.stop_after_rejects is not None or self.reference_every_s is not None

    def in_words(self) -> list[str]:
        """Return what is asked for, for people."""
        words = []
        if self.stop_after_rejects is not None:
            words.append(f"stops after {self.stop_after_rejects} rejects in a row")
        if self.reference_every_s is not None:
            which = f"a part {self.reference_name}" if self.reference_name else "a part"
            words.append(f"must reject {which} every {self.reference_every_s / 60:g} min")
        return words


@dataclass(frozen=True)
class LineState:
    """How the line does. Times in seconds of a monotonic clock."""

    reference_at_s: float
    """When a reference part was last rejected, or the watch began."""
    rejects_in_a_row: int = 0
    stopped: bool = False
    reference_missing: bool = False


def decided(
    state: LineState, rules: LineRules, verdict: Verdict, action: Action, name: str, now_s: float
) -> tuple[LineState, list[Change]]:
    """Return the state after a part, and what changed."""
    named = rules.reference_name is not None and fnmatchcase(name, rules.reference_name)
    state, changes = _reference(state, rules, verdict, named=named, now_s=now_s)
    if rules.stop_after_rejects is None or named or state.stopped:
        return state, changes
    if action in ("pass", "accept"):
        return replace(state, rejects_in_a_row=0), changes
    if action != "divert":
        return state, changes
    state = replace(state, rejects_in_a_row=state.rejects_in_a_row + 1)
    if state.rejects_in_a_row < rules.stop_after_rejects:
        return state, changes
    return replace(state, stopped=True), [*changes, "stopped"]


def waited(state: LineState, rules: LineRules, now_s: float) -> tuple[LineState, list[Change]]:
    """Return the state as time has passed, and what changed."""
    late = rules.reference_every_s is not None and now_s - state.reference_at_s > rules.reference_every_s
    if not late or state.reference_missing:
        return state, []
    return replace(state, reference_missing=True), ["reference_missing"]


def acknowledged(state: LineState) -> tuple[LineState, list[Change]]:
    """Return the state after a person has let the line run again, and what changed."""
    if not state.stopped:
        return state, []
    return replace(state, stopped=False, rejects_in_a_row=0), ["released"]


def _reference(
    state: LineState, rules: LineRules, verdict: Verdict, *, named: bool, now_s: float
) -> tuple[LineState, list[Change]]:
    if rules.reference_every_s is None:
        return state, []
    if verdict == "divert" and (named or rules.reference_name is None):
        seen: list[Change] = ["reference_seen"] if state.reference_missing else []
        return replace(state, reference_at_s=now_s, reference_missing=False), seen
    if named and not state.reference_missing:
        return replace(state, reference_missing=True), ["reference_missing"]
    return waited(state, rules, now_s)
