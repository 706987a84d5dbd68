"""Answers that people gave at their devices, which come up as events: kept like those given at the console.

Rules:
- An event may come twice; device, incarnation and number are the answer's identity.
- Who answered at a device is what they called themselves there; the note says that it was at the device.
- Where a station holds it enough that a prediction server accepted, its deferral waits for nobody; that is no review.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from cloud import audit, tables
from cloud.review import ANSWERS
from edge.wire.rows import ANSWERED_EVENT, SERVER_ANSWERED_EVENT


def keep_answers(connection: Connection, events: Sequence[Mapping[str, Any]], now_ms: int) -> int:
    """Keep the answers among these events; return how many were new.

    Args:
        connection: the transaction that keeps the events themselves.
        events: rows of the table of events; those that answer nothing we know are left alone.
        now_ms: when they came.
    """
    for event in events:
        if event["name"] == SERVER_ANSWERED_EVENT:
            _close(connection, event)
    return sum(_keep(connection, event, now_ms) for event in events if event["name"] == ANSWERED_EVENT)


def keep_waiting_answers(connection: Connection, device: str, incarnation: str, through: int, now_ms: int) -> int:
    """Keep the answers among the events that are stored already, up to a number; return how many were new."""
    events = tables.events
    mine = (events.c.device == device, events.c.incarnation == incarnation, events.c.seq <= through)
    names = (ANSWERED_EVENT, SERVER_ANSWERED_EVENT)
    found = connection.execute(select(events).where(events.c.name.in_(names), *mine))
    return keep_answers(connection, [dict(row) for row in found.mappings()], now_ms)


def _close(connection: Connection, event: Mapping[str, Any]) -> None:
    data = dict(event["body"].get("data") or {})
    if data.get("review") != "closed" or not isinstance(data.get("decision_seq"), int):
        return
    decisions = tables.decisions
    key = {"device": event["device"], "incarnation": event["incarnation"], "seq": data["decision_seq"]}
    mine = [decisions.c[name] == value for name, value in key.items()]
    connection.execute(decisions.update().where(*mine).values(needs_review=False))


def _keep(connection: Connection, event: Mapping[str, Any], now_ms: int) -> bool:
    data = dict(event["body"].get("data") or {})
    answer, reviewer = data.get("answer"), str(data.get("reviewer") or "").strip()[:64]
    if answer not in ANSWERS or not reviewer or not isinstance(data.get("decision_seq"), int):
        return False
    label = data.get("label")
    label = label[:64] if isinstance(label, str) and label.strip() else None
    note = f"answered at the device, event {event['seq']}"
    key = {"device": event["device"], "incarnation": event["incarnation"], "seq": data["decision_seq"]}
    reviews, decisions = tables.reviews, tables.decisions
    known = [reviews.c[name] == value for name, value in {**key, "note": note}.items()]
    if connection.execute(select(reviews.c.id).where(*known)).first() is not None:
        return False
    mine = [decisions.c[name] == value for name, value in key.items()]
    if connection.execute(decisions.update().where(*mine).values(needs_review=False)).rowcount == 0:
        return False
    # The time that counts for evidence is ours: a device's clock may be wrong.
    kept = {**key, "answer": answer, "label": label, "reviewer": reviewer, "note": note, "at_ms": now_ms}
    connection.execute(reviews.insert().values(**kept))
    what = {**key, "answer": answer, "label": label}
    audit.record(connection, at_ms=now_ms, who=reviewer, what="decision_reviewed", why=note, data=what)
    return True
