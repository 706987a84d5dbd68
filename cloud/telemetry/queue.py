"""What ingest notes for the rollups, in the transaction that keeps the rows themselves.

Rules:
- A row is new if its stream's position does not hold it and the table neither: so a row that was added up and then
  removed for its age is not counted again when its device sends it once more.
- Call it before the streams are moved on and the rows inserted; many batches cost as many statements as one.
- Ingest only notes; adding up is done aside, so that acknowledgements do not wait for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select, tuple_

from cloud import tables
from cloud.parsing import Batch
from cloud.store import insert_ignore
from cloud.telemetry.stages import health_values
from cloud.telemetry.tables import health_samples, rollup_queue

MINUTE_MS = 60_000
_AT_ONCE = 300
Rows = list[dict[str, Any]]


def note_windows(connection: Connection, batches: Sequence[Batch]) -> list[Rows]:
    """Note the telemetry rows that are new; return them for each batch, for only they are to be kept."""
    if not any(batch.rows.get("telemetry") for batch in batches):
        return [[] for _ in batches]
    s = tables.streams.c
    devices = sorted({batch.device for batch in batches})
    query = select(s.device, s.incarnation, s.stored_through, s.beyond).where(s.device.in_(devices))
    streams = {(row[0], row[1]): (row[2], row[3] or []) for row in connection.execute(query)}
    fresh = [
        [row for row in batch.rows.get("telemetry", []) if not _holds(streams.get(_stream(batch)), row["seq"])]
        for batch in batches
    ]
    kept = _kept(connection, [_key(row) for rows in fresh for row in rows])
    new = [[row for row in rows if _key(row) not in kept] for rows in fresh]
    keys = {_key(row): None for rows in new for row in rows}
    insert_ignore(connection, rollup_queue, [{"device": d, "incarnation": i, "seq": n} for d, i, n in keys])
    return new


def note_health(connection: Connection, states: Iterable[tuple[str, Mapping[str, Any]]], now_ms: int) -> None:
    """Note devices' own state, of each the first of a minute."""
    minute_ms = now_ms - now_ms % MINUTE_MS
    values = {device: found for device, health in states if (found := health_values(dict(health)))}
    rows = [{"device": d, "minute_ms": minute_ms, "body": body, "rolled": False} for d, body in values.items()]
    insert_ignore(connection, health_samples, rows)


def _stream(batch: Batch) -> tuple[str, str]:
    return batch.device, batch.incarnation


def _key(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["device"], row["incarnation"], row["seq"]


def _holds(stream: tuple[int, list[list[int]]] | None, seq: int) -> bool:
    return stream is not None and (seq <= stream[0] or any(first <= seq <= last for first, last in stream[1]))


def _kept(connection: Connection, keys: Sequence[tuple[str, str, int]]) -> set[tuple[Any, ...]]:
    t, found = tables.telemetry.c, set[tuple[Any, ...]]()
    for start in range(0, len(keys), _AT_ONCE):
        some = tuple_(t.device, t.incarnation, t.seq).in_(keys[start : start + _AT_ONCE])
        found |= {tuple(row) for row in connection.execute(select(t.device, t.incarnation, t.seq).where(some))}
    return found
