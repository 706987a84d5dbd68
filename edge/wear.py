"""Decides what is no longer written when the day's budget of written bytes nears its end: flash wears out by writing.

Rules:
- A decision, its outcome and events are always written; what may go is named in `Droppable`, in an order of settings.
- The first kind goes at `BEGINS` of the budget, the last at the whole, those between at even steps.
- What was written is given from outside, so that it counts for the day whatever wrote it; days are UTC's.
- The same order says what goes first when the record or the disk is full (`edge.dropping`).
- What was left out is counted; a new day begins with nothing written and nothing left out.
"""

import json
import threading
from collections.abc import Sequence
from typing import Any, Literal, get_args

Droppable = Literal["telemetry", "confident_inputs", "disagreement_inputs", "deferred_inputs"]
KeptFor = Literal["confident_inputs", "disagreement_inputs", "deferred_inputs"]
"""What a picture, a sound or its features are kept for: a sure decision, a candidate in the shadow that would have
decided otherwise, or a decision that goes to a person."""
DROP_FIRST: tuple[Droppable, ...] = get_args(Droppable)
"""The default order: what a person would miss least comes first."""
BEGINS = 0.8
"""Share of the day's budget at which the first kind goes: the rest is for decisions, which nothing holds back."""
COARSER = 10.0
"""Windows of telemetry are so many times longer while telemetry is reduced: counts stay whole, rows become few."""
DAY_MS = 86_400_000


class WriteBudget:
    """The day's written bytes and what follows from them. Used from any thread."""

    def __init__(self, limit_bytes: int | None, order: Sequence[Droppable] = DROP_FIRST) -> None:
        """Take the budget of a day, None for none, and what goes first."""
        self._limit_bytes, self._order = limit_bytes, tuple(order)
        self._lock = threading.Lock()
        self._day = 0
        self._written_bytes = 0
        self._left_out: dict[str, int] = {}
        self._untold: dict[str, int] = {}

    def restore(self, text: str | None) -> None:
        """Go on from what `text` kept before a restart; what cannot be read begins at nothing."""
        try:
            kept: Any = json.loads(text or "{}")
            day, written = int(kept["day"]), int(kept["written_bytes"])
            left_out = {str(kind): int(count) for kind, count in kept["left_out"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        with self._lock:
            self._day, self._written_bytes, self._left_out = day, written, left_out

    def text(self) -> str:
        """Return what must survive a restart, as JSON."""
        return json.dumps(self.figures())

    def figures(self) -> dict[str, Any]:
        """Return day (since 1970), written bytes, and how many of each kind were left out."""
        with self._lock:
            return {"day": self._day, "written_bytes": self._written_bytes, "left_out": dict(self._left_out)}

    def add(self, written_bytes: int, now_ms: int) -> tuple[Droppable, ...] | None:
        """Count bytes; return what is left out from now on if that has changed, else None."""
        before = self.reduced
        with self._lock:
            day = now_ms // DAY_MS
            if day != self._day:
                self._day, self._written_bytes, self._left_out = day, 0, {}
            self._written_bytes += max(0, written_bytes)
        after = self.reduced
        return None if before == after else after

    @property
    def reduced(self) -> tuple[Droppable, ...]:
        """What is left out now, first to go first."""
        if self._limit_bytes is None or not self._order:
            return ()
        used = self._written_bytes / self._limit_bytes
        step = (1 - BEGINS) / max(1, len(self._order) - 1)
        return tuple(kind for place, kind in enumerate(self._order) if used >= BEGINS + place * step)

    def leaves_out(self, kind: Droppable) -> bool:
        """Return whether one of a kind is not to be written, and count it if so."""
        if kind not in self.reduced:
            return False
        with self._lock:
            for counts in (self._left_out, self._untold):
                counts[kind] = counts.get(kind, 0) + 1
        return True

    def take_untold(self) -> dict[str, int]:
        """Return what was left out since the last call, by kind."""
        with self._lock:
            untold, self._untold = self._untold, {}
        return untold

    @property
    def telemetry_stretch(self) -> float:
        """How many times longer a window of telemetry is now."""
        return COARSER if "telemetry" in self.reduced else 1.0
