"""Exports people's answers of one model as a dataset version: a file named by its own SHA-256.

Rules:
- The same answers give the same bytes, so a version that nothing was added to is the same version.
- The first line says what it is; each further line is one input with the newest answer, in order of the input's digest.
- "Can't tell" is no label, and what a device was asked to forget is in no new version.
- The file names inputs by digest; their bytes stay where they are (`inputs/`), and may be erased on request.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, func, select

from cloud import audit, tables
from cloud.blobs import BlobStore
from cloud.clock import Clock
from cloud.errors import NotFoundError
from cloud.retraining.tables import dataset_versions
from cloud.store import CloudStore, insert_ignore

FORMAT = 1
MAX_ROWS = 500_000
"""Newest; a version is read into memory by whoever trains."""
MAX_BYTES = 512 * 2**20


@dataclass(frozen=True)
class DatasetVersion:
    """One version."""

    digest: str
    model: str
    rows: int
    size_bytes: int
    created_ms: int
    created_by: str

    def as_json(self) -> dict[str, Any]:
        """Return it as a document for machines."""
        return asdict(self)


class Datasets:
    """Makes and lists dataset versions."""

    def __init__(self, store: CloudStore, clock: Clock, blobs: BlobStore) -> None:
        self._store = store
        self._clock = clock
        self.blobs = blobs

    def export(self, model: str, *, who: str) -> DatasetVersion:
        """Return the version that holds all answers up to now, made if there is none."""
        with self._store.read() as connection:
            data, rows = contents(connection, model)
        digest = hashlib.sha256(data).hexdigest()
        self.blobs.put(data, digest=digest)
        now_ms = self._clock.now_ms()
        version = DatasetVersion(digest, model, rows, len(data), now_ms, who[:64])
        with self._store.write() as connection:
            if insert_ignore(connection, dataset_versions, [asdict(version)]):
                about = {"model": model, "dataset": digest, "rows": rows}
                audit.record(connection, at_ms=now_ms, who=who, what="dataset_exported", data=about)
        return self.version(digest)

    def version(self, digest: str) -> DatasetVersion:
        """Return one version.

        Raises:
            NotFoundError: there is none.
        """
        with self._store.read() as connection:
            query = select(dataset_versions).where(dataset_versions.c.digest == digest)
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise NotFoundError(f"no dataset version {digest[:12]}…")
        return DatasetVersion(**row)

    def versions(self, model: str | None = None, *, last: int = 100) -> list[DatasetVersion]:
        """Return the versions, newest first."""
        c = dataset_versions.c
        query = select(dataset_versions).order_by(c.created_ms.desc(), c.digest).limit(last)
        query = query if model is None else query.where(c.model == model)
        with self._store.read() as connection:
            return [DatasetVersion(**row) for row in connection.execute(query).mappings()]


def contents(connection: Connection, model: str) -> tuple[bytes, int]:
    """Return the file's bytes and its number of rows."""
    rows = sorted((_row(row) for row in connection.execute(_newest(model))), key=_order)
    head = {"format": FORMAT, "model": model, "rows": len(rows)}
    lines = [json.dumps(line, sort_keys=True, ensure_ascii=False) for line in (head, *rows)]
    return ("\n".join(lines) + "\n").encode(), len(rows)


def labelled(connection: Connection, model: str) -> int:
    """Return how many rows a version would have now."""
    query = select(func.count()).select_from(_newest(model).order_by(None).subquery())
    return int(connection.execute(query).scalar_one())


def _newest(model: str) -> Select[Any]:
    d, r, e = tables.decisions.c, tables.reviews.c, tables.erasures.c
    usable = select(func.max(r.id)).where(r.answer != "cant_tell").group_by(r.device, r.incarnation, r.seq)
    erased = select(e.digest).where(e.device == d.device, e.digest == d.input_digest).exists()
    return (
        select(
            d.input_digest, d.device, d.incarnation, d.seq, d.station, d.version, d.verdict, d.at_ms,
            r.answer, r.label,
        )
        .join_from(
            tables.reviews,
            tables.decisions,
            and_(d.device == r.device, d.incarnation == r.incarnation, d.seq == r.seq),
        )
        .where(d.model == model, r.id.in_(usable), ~erased)
        .order_by(r.id.desc())
        .limit(MAX_ROWS)
    )  # fmt: skip


def _row(row: Any) -> dict[str, Any]:
    return {
        "input": row.input_digest,
        "answer": row.answer,
        "label": row.label,
        "decided": row.verdict,
        "version": row.version,
        "device": row.device,
        "incarnation": row.incarnation,
        "seq": row.seq,
        "station": row.station,
        "at_ms": row.at_ms,
    }


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["input"], row["device"], row["incarnation"], row["seq"]
