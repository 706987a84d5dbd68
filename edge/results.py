"""What a station understood, for people who look on: pure, from rows of the record to one line each.

Rules:
- A decision is a result of the device, a server's answer one of the server; both say how long it took from the end of
  speech, or, where there is none, from when the input came.
- What came from elsewhere (names of files, words of a server) is shown without anything that steers a terminal.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from edge.wire.rows import SERVER_ANSWERED_EVENT, DecisionRow, EventRow

MAX_SAID = 120
"""Letters of a sentence that fit a line or two."""


@dataclass(frozen=True)
class Result:
    """One thing that was understood, or not."""

    at_ms: int
    station: str
    name: str
    where: Literal["device", "server"]
    verdict: str
    said: str | None
    """The label, or the sentence; empty if a recogniser understood nothing."""
    confidence: float | None
    why: str | None
    """Why it was deferred."""
    length_s: float | None
    """Of the sound; None for pictures."""
    latency_ms: float
    """From the end of speech to this result."""

    def words(self) -> str:
        """Return it in one line."""
        parts = [f"{datetime.fromtimestamp(self.at_ms / 1000).astimezone():%H:%M:%S} {self.station}:"]  # the local time
        parts.append(f"{self.length_s:.2f} s" if self.length_s is not None else self.name)
        parts.append(f"“{self.said}”" if self.said else "nothing")
        parts.append(self.verdict if self.why is None else f"{self.verdict} ({self.why})")
        parts += [] if self.confidence is None else [f"{self.confidence:.2f}"]
        return f"{' '.join(parts)} · {self.where}, {self.latency_ms:.0f} ms"


def of_decision(row: DecisionRow) -> Result:
    """Return what the device made of an input."""
    took = row.latency_ms
    return Result(
        at_ms=row.at_ms,
        station=row.station,
        name=_plain(row.input.name) or "?",
        where="device",
        verdict=row.verdict,
        said=_plain(row.label) if row.text is None else _plain(row.text),
        confidence=row.confidence,
        why=row.reason,
        length_s=row.metrics.get("duration_s"),
        latency_ms=took.get("hang_over", 0.0) + took.get("total", 0.0),
    )


def of_answer(event: EventRow, decision: DecisionRow | None) -> Result | None:
    """Return what the server made of it, None for an event that is no answer.

    Args:
        event: any event.
        decision: the one that it answers, if it is still known.
    """
    if event.name != SERVER_ANSWERED_EVENT:
        return None
    data = event.data
    took: dict[str, Any] = data.get("latency_ms") or {}
    confidence = data.get("confidence")
    return Result(
        at_ms=event.at_ms,
        station=event.station or "?",
        name=(_plain(decision.input.name) if decision else None) or "?",
        where="server",
        verdict=_plain(data.get("verdict")) or "?",
        said=_plain(data.get("label")) if data.get("text") is None else _plain(data["text"]),
        confidence=confidence if isinstance(confidence, float) else None,
        why=None,
        length_s=decision.metrics.get("duration_s") if decision else None,
        latency_ms=float(took.get("since_speech") or took.get("total") or 0.0),
    )


def _plain(text: Any) -> str | None:
    if not isinstance(text, str):
        return None
    plain = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    return plain if len(plain) <= MAX_SAID else f"{plain[:MAX_SAID]}…"
