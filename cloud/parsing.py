"""Turns what came by MQTT into table rows. A pure rule: bytes in, values or reasons out.

Rules:
- A message counts only if its topic, its own device field and its kind agree.
- One bad row never spoils its batch: it is handed back with its reason, and counts as received.
- Columns are cut to what the tables take; `body` keeps the row as it came.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from edge.wire.messages import Presence, Reported
from edge.wire.rows import DecisionRow, EventRow, OutcomeRow, Row, TelemetryRow
from edge.wire.topics import FROM_DEVICE
from edge.wire.topics import parse as parse_topic

MAX_INTEGER = 2**53
"""Sequence numbers and times beyond it do not survive JSON in every reader, nor the database's integers."""
MAX_ROWS = 1000
MAX_INCARNATION = 64
MAX_PAYLOAD_BYTES = 8 * 2**20
"""The broker takes no more either."""
EXCERPT_CHARS = 4000
"""Of a payload in quarantine: enough to see what it was; its device sends it again."""
ROW_CHARS = 100_000
"""Of a row in quarantine: all of it, because it counts as received and its device may forget it."""

_ROW: TypeAdapter[DecisionRow | OutcomeRow | EventRow | TelemetryRow] = TypeAdapter(Row)


class Unreadable(ValueError):  # noqa: N818  (what it is, not an accident)
    """A message that means nothing to us, with the reason."""


@dataclass(frozen=True)
class BadRow:
    """A row that did not parse."""

    seq: int | None
    reason: str
    excerpt: str


@dataclass(frozen=True)
class Batch:
    """The rows of one `up` message, ready for the tables."""

    device: str
    incarnation: str
    seqs: list[int]
    """Sequence numbers of all rows, also of bad ones."""
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Table name → rows."""
    bad: list[BadRow] = field(default_factory=list)


def parse(topic_name: str, payload: bytes, *, received_at_ms: int) -> Batch | Reported | Presence:
    """Return what a message says.

    Raises:
        Unreadable: it says nothing that we know, and why.
    """
    device, channel = _address(topic_name)
    document = _document(payload)
    if document.get("kind") != channel:
        raise Unreadable(f"kind: expected {channel!r} on this topic, got {str(document.get('kind'))[:40]!r}")
    if document.get("device") != device:
        raise Unreadable(f"device: expected {device!r} on this topic, got {str(document.get('device'))[:80]!r}")
    if channel == "up":
        return _batch(document, device, received_at_ms)
    model = Reported if channel == "reported" else Presence
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise Unreadable(_first(error)) from error


def excerpt(payload: bytes) -> str:
    """Return the beginning of a payload as text that any database takes."""
    return printable(payload[:EXCERPT_CHARS].decode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    """Return text that every encoder and database takes; what they would not take is shown escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")


def shown(row: Any) -> str:
    """Return a row as text for a person to look at."""
    try:
        return json.dumps(row)[:ROW_CHARS]
    except RecursionError:
        return "nested too deep to be shown"


def merge(stored_through: int, beyond: list[list[int]], seqs: Iterable[int]) -> tuple[int, list[list[int]]]:
    """Return the highest contiguous number stored, and the ranges beyond it, after these numbers were added."""
    ranges = sorted([*beyond, *([seq, seq] for seq in set(seqs) if seq > stored_through)])
    left: list[list[int]] = []
    for first, last in ranges:
        if first <= stored_through + 1:
            stored_through = max(stored_through, last)
        elif left and first <= left[-1][1] + 1:
            left[-1][1] = max(left[-1][1], last)
        else:
            left.append([first, last])
    return stored_through, left


def _address(topic_name: str) -> tuple[str, str]:
    try:
        device, channel = parse_topic(topic_name)
    except ValueError as error:
        raise Unreadable(str(error)) from error
    if channel not in FROM_DEVICE:
        raise Unreadable(f"channel: expected one of {', '.join(FROM_DEVICE)}, got {channel!r}")
    return device, channel


def _document(payload: bytes) -> dict[str, Any]:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise Unreadable(f"expected at most {MAX_PAYLOAD_BYTES} bytes, got {len(payload)}")
    try:
        document = _json(payload)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise Unreadable(f"expected a JSON object, got {type(document).__name__}")
    return document


def _json(payload: bytes) -> Any:
    try:
        return from_json(payload, allow_inf_nan=False)
    except ValueError:  # NaN, or half a character somewhere: that shall cost one field or row, not the message
        return json.loads(payload, parse_constant=lambda _name: None)


def _batch(document: dict[str, Any], device: str, received_at_ms: int) -> Batch:
    incarnation, rows = document.get("incarnation"), document.get("rows")
    if not isinstance(incarnation, str) or not 0 < len(incarnation) <= MAX_INCARNATION or not incarnation.isascii():
        raise Unreadable(f"incarnation: expected 1 to {MAX_INCARNATION} plain characters")
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_ROWS:
        raise Unreadable(f"rows: expected 1 to {MAX_ROWS}")
    batch = Batch(device, incarnation, _seqs(rows))
    for seq, row in zip(batch.seqs, rows, strict=True):
        try:
            table, values = _values(row)
        except Unreadable as error:
            batch.bad.append(BadRow(seq, str(error), shown(row)))
        else:
            key = {"device": device, "incarnation": incarnation, "received_at_ms": received_at_ms, "body": row}
            batch.rows.setdefault(table, []).append({**key, **values})
    return batch


def _seqs(rows: list[Any]) -> list[int]:
    """Return each row's number; where one cannot be read, its place in the batch tells it."""
    read = [_seq(row) for row in rows]
    known = next(((place, seq) for place, seq in enumerate(read) if seq is not None), None)
    if known is None:
        raise Unreadable("rows: none has a sequence number")
    seqs: list[int] = []
    for seq in read:
        before = seqs[-1] if seqs else known[1] - known[0] - 1
        seqs.append(max(before + 1, 1) if seq is None else seq)
    return seqs


def _seq(row: Any) -> int | None:
    seq = row.get("seq") if isinstance(row, dict) else None
    return seq if type(seq) is int and 0 < seq <= MAX_INTEGER else None


def _values(raw: Any) -> tuple[str, dict[str, Any]]:
    try:
        row = _ROW.validate_python(raw)
    except ValidationError as error:
        raise Unreadable(_first(error)) from error
    if not 0 < row.seq <= MAX_INTEGER:
        raise Unreadable(f"seq: expected at most {MAX_INTEGER}, got {row.seq}")
    if isinstance(row, DecisionRow):
        return "decisions", {"seq": row.seq, **_decision(row)}
    if isinstance(row, OutcomeRow):
        fields = {"decision_seq": _integer(row.decision_seq, "decision_seq"), "state": row.state}
        return "outcomes", {"seq": row.seq, "at_ms": _integer(row.at_ms, "at_ms"), **fields}
    if isinstance(row, EventRow):
        return "events", {"seq": row.seq, **_event(row)}
    return "telemetry", {"seq": row.seq, **_telemetry(row)}


def _decision(row: DecisionRow) -> dict[str, Any]:
    return {
        "at_ms": _integer(row.at_ms, "at_ms"),
        "station": row.station,
        "model": row.bundle.name if row.bundle else None,
        "version": row.bundle.version if row.bundle else None,
        "digest": row.bundle.digest if row.bundle else None,
        "verdict": row.verdict,
        "action": row.action,
        "reason": row.reason,
        "label": None if row.label is None else _text(row.label, 64),
        "confidence": row.confidence,
        "audit_probability": row.audit_probability,
        "input_digest": row.input.digest,
        "input_kept": row.input.kept,
        "latency_ms": row.latency_ms.get("total"),
        "needs_review": row.verdict == "defer" or row.reason == "audit",
    }


def _event(row: EventRow) -> dict[str, Any]:
    return {
        "at_ms": _integer(row.at_ms, "at_ms"),
        "name": row.name,
        "severity": row.severity,
        "station": row.station,
        "model": row.model,
        "detail": _text(row.detail, 4000),
    }


def _telemetry(row: TelemetryRow) -> dict[str, Any]:
    return {
        "at_ms": _integer(row.ended_at_ms, "ended_at_ms"),
        "started_at_ms": _integer(row.started_at_ms, "started_at_ms"),
        "station": row.station,
        "model": row.model,
        "digest": row.bundle.digest if row.bundle else None,
    }


def _integer(value: int, name: str) -> int:
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise Unreadable(f"{name}: expected at most {MAX_INTEGER}, got {value}")
    return value


def _text(value: str, longest: int) -> str:
    return printable(value[:longest])


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
