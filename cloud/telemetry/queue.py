"""What ingest notes for the rollups, in the transaction that keeps the rows themselves.

Rules:
- A row is new if its stream's position does not hold it and the table neither: so a row that was added up and then
  removed for its age is not counted again when its device sends it once more.
- Ingest only notes; adding up is done aside, so that acknowledgements do not wait for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from cloud import tables
from cloud.store import insert_ignore
from cloud.telemetry.stages import health_values
from cloud.telemetry.tables import health_samples, rollup_queue

MINUTE_MS = 60_000


def note_windows(
    connection: Connection, device: str, incarnation: str, rows: Sequence[Mapping[str, Any]], now_ms: int
) -> list[Mapping[str, Any]]:
    """Note the telemetry rows that are new; return them, for only they are to be kept."""
    streams, telemetry = tables.streams.c, tables.telemetry.c
    key = {"device": device, "incarnation": incarnation}
    insert_ignore(connection, tables.streams, [{**key, "stored_through": 0, "first_seen_at_ms": now_ms}])
    mine = (streams.device == device, streams.incarnation == incarnation)
    query = select(streams.stored_through, streams.beyond).where(*mine).with_for_update()
    through, beyond = connection.execute(query).one()
    fresh = [row for row in rows if row["seq"] > through and not _within(row["seq"], beyond or [])]
    if not fresh:
        return []
    seqs = [row["seq"] for row in fresh]
    same = (telemetry.device == device, telemetry.incarnation == incarnation, telemetry.seq.in_(seqs))
    kept = set(connection.execute(select(telemetry.seq).where(*same)).scalars())
    new = [row for row in fresh if row["seq"] not in kept]
    insert_ignore(connection, rollup_queue, [{**key, "seq": row["seq"]} for row in new])
    return new


def note_health(connection: Connection, device: str, health: Mapping[str, Any], now_ms: int) -> None:
    """Note a device's own state: the first of each minute."""
    values = health_values(dict(health))
    if values:
        row = {"device": device, "minute_ms": now_ms - now_ms % MINUTE_MS, "body": values, "rolled": False}
        insert_ignore(connection, health_samples, [row])


def _within(seq: int, ranges: Sequence[Sequence[int]]) -> bool:
    return any(first <= seq <= last for first, last in ranges)
