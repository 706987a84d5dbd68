"""When a breach becomes an alert and when it ends: hysteresis in value and in time; pure.

| state    | what is seen               | next     | when                                            |
|----------|----------------------------|----------|-------------------------------------------------|
| none     | breach                     | pending  | at once                                         |
| pending  | breach                     | firing   | it has held for `for_s`                         |
| pending  | no breach                  | none     | at once                                         |
| firing   | clear                      | resolved | it has held for `clear_s`                       |
| firing   | breach, or neither         | firing   | its words and value follow                      |
| any      | nothing is known           | the same | what is not known neither begins nor ends one   |

Rules:
- "Clear" is less than "no breach": between the two limits of a rule nothing changes, so a value at the limit does not
  flap.
"""

from dataclasses import dataclass, replace
from typing import Literal

AlertState = Literal["none", "pending", "firing", "resolved"]
Seen = Literal["breach", "between", "clear", "unknown"]


@dataclass(frozen=True)
class Observation:
    """What one rule sees of one subject now."""

    subject: str
    seen: Seen
    words: str
    value: float | None = None


@dataclass(frozen=True)
class Standing:
    """How one rule and one subject stand."""

    state: AlertState = "none"
    began_ms: int = 0
    fired_ms: int | None = None
    clear_ms: int | None = None
    resolved_ms: int | None = None
    words: str = ""
    value: float | None = None


def step(standing: Standing, seen: Observation, now_ms: int, *, for_s: float, clear_s: float) -> Standing:
    """Return how it stands after this observation."""
    if seen.seen == "unknown":
        return standing
    if standing.state in ("none", "resolved"):
        if seen.seen != "breach":
            return standing
        standing = Standing(state="pending", began_ms=now_ms)
    if standing.state == "pending":
        if seen.seen != "breach":
            return Standing()
        told = replace(standing, words=seen.words, value=seen.value)
        held = now_ms - standing.began_ms >= for_s * 1000
        return replace(told, state="firing", fired_ms=now_ms) if held else told
    if seen.seen != "clear":
        return replace(standing, clear_ms=None, words=seen.words, value=seen.value)
    clear_ms = now_ms if standing.clear_ms is None else standing.clear_ms
    if now_ms - clear_ms < clear_s * 1000:
        return replace(standing, clear_ms=clear_ms)
    return replace(standing, state="resolved", clear_ms=clear_ms, resolved_ms=now_ms)


def seen_of(value: float | None, *, above: float | None, below: float | None, clear: float | None) -> Seen:
    """Return what a value is to a rule with two limits; without `clear` there is nothing between."""
    if value is None:
        return "unknown"
    if above is not None:
        return "breach" if value > above else "clear" if value <= (above if clear is None else clear) else "between"
    assert below is not None
    return "breach" if value < below else "clear" if value >= (below if clear is None else clear) else "between"


def retry_after_s(attempts: int) -> float:
    """Return how long to wait after so many failed attempts to tell somebody."""
    return float(min(10 * 2 ** max(attempts - 1, 0), 3600))


def silences(rule: str, subject: str, *, of_rule: str, of_subject: str) -> bool:
    """Return whether a silence (empty for any) covers an alert."""
    return rule in ("", of_rule) and subject in ("", of_subject)
