"""The queue of decisions that people look at, and their answers.

Rules:
- What was deferred or drawn for audit waits until one person has answered; safety first: deferrals before
  audits, and the oldest of each first.
- Answers are added, never changed: a second opinion is a second row. Only a slip of the finger is undone, within
  `UNDO_MS`; the audit log keeps both the answer and its undoing.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import func, select

from cloud import audit, tables
from cloud.clock import Clock
from cloud.errors import ConflictError, InvalidError, NotFoundError
from cloud.store import CloudStore

Answer = Literal["pass", "divert", "accept", "cant_tell"]
ANSWERS: tuple[Answer, ...] = get_args(Answer)
Part = Literal["deferred", "audit"]
"""Deferred decisions wait at the line; audits measure how well the sure ones are."""
LOOK_AHEAD = 50
"""How far `next` looks for one whose picture has arrived."""
UNDO_MS = 10 * 60_000
"""Later than this an answer is an opinion and no slip: whoever thinks otherwise adds another."""


@dataclass(frozen=True)
class ReviewItem:
    """One decision that waits for a person."""

    device: str
    incarnation: str
    seq: int
    station: str
    model: str | None
    version: str | None
    reason: str | None
    decided_at_ms: int
    input_digest: str
    input_present: bool
    """Whether the picture or sound has arrived."""
    body: dict[str, Any]
    """The decision as it came."""

    def as_json(self) -> dict[str, Any]:
        """Return it as a document for machines."""
        return dict(self.__dict__)


class Reviews:
    """The queue and the answers."""

    def __init__(self, store: CloudStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def waiting(self) -> int:
        """Return how many decisions wait for a person."""
        query = select(func.count()).select_from(tables.decisions).where(tables.decisions.c.needs_review.is_(True))
        with self._store.read() as connection:
            return int(connection.execute(query).scalar_one())

    def queue(self, *, last: int = 50, part: Part | None = None) -> list[ReviewItem]:
        """Return the decisions that wait, in the order in which they should be looked at; all, or one part."""
        decisions, inputs = tables.decisions.c, tables.inputs.c
        waiting = (
            select(tables.decisions, inputs.digest.is_not(None).label("input_present"))
            .outerjoin(tables.inputs, inputs.digest == decisions.input_digest)
            .where(decisions.needs_review.is_(True))
            .order_by(decisions.at_ms, decisions.device, decisions.seq)
        )
        is_audit = func.coalesce(decisions.reason, "") == "audit"
        with self._store.read() as connection:
            # One after the other: each walks the index in order and stops, both at once would sort all that waits.
            found = [] if part == "audit" else list(connection.execute(waiting.where(~is_audit).limit(last)))
            if len(found) < last and part != "deferred":
                found += connection.execute(waiting.where(is_audit).limit(last - len(found)))
        return [_item(row) for row in found]

    def next(self) -> ReviewItem | None:
        """Return the decision to look at now, or None when nothing waits; one whose input is here comes first."""
        items = self.queue(last=LOOK_AHEAD)
        return next((item for item in items if item.input_present), items[0] if items else None)

    def item(self, device: str, incarnation: str, seq: int) -> ReviewItem:
        """Return one decision, whether or not it still waits.

        Raises:
            NotFoundError: there is no such decision.
        """
        decisions, inputs = tables.decisions.c, tables.inputs.c
        query = (
            select(tables.decisions, inputs.digest.is_not(None).label("input_present"))
            .outerjoin(tables.inputs, inputs.digest == decisions.input_digest)
            .where(decisions.device == device, decisions.incarnation == incarnation, decisions.seq == seq)
        )
        with self._store.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(f"no decision {seq} of {device} in {incarnation}")
        return _item(row)

    def answer(
        self,
        device: str,
        incarnation: str,
        seq: int,
        *,
        answer: str,
        reviewer: str,
        label: str | None = None,
        note: str = "",
    ) -> int:
        """Keep a person's answer and take the decision off the queue; return the answer's id.

        Raises:
            InvalidError: the answer is not one of `ANSWERS`, or nobody signed it.
            NotFoundError: there is no such decision.
        """
        if answer not in ANSWERS:
            raise InvalidError(f"answer: expected one of {', '.join(ANSWERS)}, got {answer!r}")
        if not reviewer.strip():
            raise InvalidError("reviewer: expected a name, got nothing")
        decisions, now_ms = tables.decisions, self._clock.now_ms()
        key = (decisions.c.device == device, decisions.c.incarnation == incarnation, decisions.c.seq == seq)
        with self._store.write() as connection:
            if connection.execute(decisions.update().where(*key).values(needs_review=False)).rowcount == 0:
                raise NotFoundError(f"no decision {seq} of {device} in {incarnation}")
            kept = {"answer": answer, "label": label, "reviewer": reviewer[:64], "note": note, "at_ms": now_ms}
            result = connection.execute(
                tables.reviews.insert().values(device=device, incarnation=incarnation, seq=seq, **kept)
            )
            data = {"device": device, "incarnation": incarnation, "seq": seq, "answer": answer, "label": label}
            audit.record(connection, at_ms=now_ms, who=reviewer, what="decision_reviewed", why=note, data=data)
        key_of_answer = result.inserted_primary_key
        assert key_of_answer is not None
        return int(key_of_answer[0])

    def undo(self, answer: int, *, who: str) -> None:
        """Take an answer back that was given a moment ago; its decision waits again if nobody else has answered.

        Raises:
            NotFoundError: there is no such answer.
            ConflictError: it is too old to be a slip.
        """
        reviews, now_ms = tables.reviews, self._clock.now_ms()
        with self._store.write() as connection:
            row = connection.execute(select(reviews).where(reviews.c.id == answer)).one_or_none()
            if row is None:
                raise NotFoundError(f"no answer {answer}")
            if now_ms - row.at_ms > UNDO_MS:
                raise ConflictError(f"the answer is older than {UNDO_MS // 60_000} minutes", hint="answer it once more")
            connection.execute(reviews.delete().where(reviews.c.id == answer))
            key = {"device": row.device, "incarnation": row.incarnation, "seq": row.seq}
            others = select(reviews.c.id).where(*(reviews.c[name] == value for name, value in key.items()))
            if connection.execute(others).first() is None:
                same = [tables.decisions.c[name] == value for name, value in key.items()]
                connection.execute(tables.decisions.update().where(*same).values(needs_review=True))
            before = {"answer": row.answer, "reviewer": row.reviewer}
            audit.record(connection, at_ms=now_ms, who=who, what="review_undone", data=key, before=before)


def _item(row: Any) -> ReviewItem:
    return ReviewItem(
        device=row.device,
        incarnation=row.incarnation,
        seq=row.seq,
        station=row.station,
        model=row.model,
        version=row.version,
        reason=row.reason,
        decided_at_ms=row.at_ms,
        input_digest=row.input_digest,
        input_present=bool(row.input_present),
        body=row.body,
    )
