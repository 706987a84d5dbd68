"""The deferred and audited parts that a person at the device can answer, and the answers, which travel up as events.

Rules:
- An answer is an event in the record like any other: it survives a cut, and is sent when the cloud is there again.
- Of a word that was heard a person may name another one, of those that the station's bundle knows.
- The newest part comes first: it is the one that still lies in front of the person.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from edge.errors import ConfigError
from edge.store import Store
from edge.wire.rows import ANSWERED_EVENT, SERVER_ANSWERED_EVENT, DecisionRow, EventRow

Answer = Literal["pass", "divert", "accept", "cant_tell"]
ANSWERS: tuple[Answer, ...] = get_args(Answer)
LOOK_BACK = 2_000
"""Rows that are looked through for open parts: an hour of deferrals at a busy station, read in milliseconds."""
MAX_WHO = 64


@dataclass(frozen=True)
class Open:
    """What waits at this device: the newest first."""

    parts: list[DecisionRow]

    @property
    def count(self) -> int:
        return len(self.parts)


def open_parts(store: Store) -> Open:
    """Return the deferred and audited decisions among the newest rows that nobody has answered here."""
    rows = store.rows(max(0, store.last_seq() - LOOK_BACK), limit=LOOK_BACK)
    answered = {row.data.get("decision_seq") for row in rows if isinstance(row, EventRow) and _answers(row)}
    waiting = [row for row in rows if isinstance(row, DecisionRow) and row.reason is not None]
    return Open([row for row in reversed(waiting) if row.seq not in answered])


def _answers(event: EventRow) -> bool:
    """Return whether nobody has to be asked any more: a person answered, or a server and that is enough here."""
    by_server = event.name == SERVER_ANSWERED_EVENT and event.data.get("review") == "closed"
    return by_server or event.name == ANSWERED_EVENT


def answer(
    store: Store,
    seq: int,
    word: str,
    who: str,
    *,
    boot_id: str,
    label: str | None = None,
    known: Callable[[str], Sequence[str]] = lambda _station: (),
) -> EventRow:
    """Record a person's answer to a decision.

    Args:
        store: the record.
        seq: number of the decision.
        word: one of `ANSWERS`.
        who: name of the person.
        boot_id: of this start of the daemon.
        label: what was really said, if the person names it.
        known: gives the labels that may be named at a station.

    Raises:
        ConfigError: there is no such decision, the word is not one of `ANSWERS`, nobody signed it, or the label is none
            of the station's.
        StoreError: it was not recorded.
    """
    if word not in ANSWERS:
        raise ConfigError(f"answer: expected one of {', '.join(ANSWERS)}, got {word!r}")
    if not who.strip():
        raise ConfigError("who: expected a name, got nothing", hint="say who answers: an answer without a name is none")
    decision = store.decision(seq)
    if decision is None:
        raise ConfigError(f"no decision {seq} in this record")
    if label is not None and label not in known(decision.station):
        names = ", ".join(known(decision.station)) or "none: this station's labels are not named"
        raise ConfigError(f"label: expected one of {names}, got {label!r}")
    named = {} if label is None else {"label": label}
    return store.append_event(
        ANSWERED_EVENT,
        boot_id=boot_id,
        station=decision.station,
        model=decision.bundle.name if decision.bundle else None,
        detail=f"{who.strip()[:MAX_WHO]} answered {' '.join([word, *named.values()])} to {decision.input.name}",
        data={"decision_seq": seq, "answer": word, "reviewer": who.strip()[:MAX_WHO], **named},
    )
