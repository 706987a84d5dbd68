"""Who changed what and why: an append-only log in which every row holds the digest of the one before it.

Rules:
- A row is written in the same transaction as the change itself.
- Rows are numbered without a gap; the database refuses to change or remove one (triggers).
- A chain alone does not show that its end was cut off: the newest number and digest (the head) are kept in a file
  beside the database too, and whoever writes a head down elsewhere can hold the log against it years later.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json
from sqlalchemy import Connection, select

from cloud import engines, tables
from cloud.blobs import write_durably
from cloud.errors import InvalidError

CONDUCTOR = "conductor"
"""The name under which rollouts act by themselves."""
BEGINNING = "0" * 64
"""What the first row holds as the digest of the one before."""
FIRST_MOMENT_MS = 10**12
"""What is larger and ends in `_ms` is a moment, not a length."""
HEAD_FILE = "audit-head.txt"
FIELDS = ("id", "at_ms", "who", "what", "why", "data", "before", "after", "previous")
_LOCK_NUMBER = 0x11E51DE
"""Rows are added one after the other, because each needs the one before."""
_REFUSAL = "the audit log is only ever added to"


@dataclass(frozen=True)
class Head:
    """The newest row."""

    number: int
    digest: str

    @classmethod
    def parse(cls, written: str) -> "Head":
        """Return the head that was written as "NUMBER:DIGEST".

        Raises:
            ValueError: it is not one.
        """
        number, _, digest = written.partition(":")
        if len(digest) != len(BEGINNING):
            raise ValueError(f"expected NUMBER:DIGEST, got {written!r}")
        return cls(int(number), digest)

    def __str__(self) -> str:
        return f"{self.number}:{self.digest}"


@dataclass(frozen=True)
class Verdict:
    """What `verify` found."""

    rows: int
    head: Head
    faults: list[str]


def record(
    connection: Connection,
    *,
    at_ms: int,
    who: str,
    what: str,
    why: str = "",
    data: dict[str, Any] | None = None,
    before: Any = None,
    after: Any = None,
) -> None:
    """Add one row; `what` is in the past tense, for example `device_revoked`, `data` names what it was done to."""
    engines.one_after_the_other(connection, _LOCK_NUMBER)
    last = head(connection)
    row = {
        "id": last.number + 1,
        "at_ms": at_ms,
        "who": who[:64],
        "what": what[:64],
        "why": why,
        "data": _plain(data or {}),
        "before": _plain(before),
        "after": _plain(after),
        "previous": last.digest,
    }
    connection.execute(tables.audit_log.insert().values(**row, digest=digest_of(row)))


def head(connection: Connection) -> Head:
    """Return number and digest of the newest row."""
    log = tables.audit_log.c
    row = connection.execute(select(log.id, log.digest).order_by(log.id.desc()).limit(1)).first()
    return Head(0, BEGINNING) if row is None else Head(row.id, row.digest or BEGINNING)


def rows(connection: Connection, *, last: int = 50, who: str | None = None, what: str | None = None) -> list[Any]:
    """Return the newest rows, newest first."""
    log = tables.audit_log
    query = select(log).order_by(log.c.id.desc()).limit(last)
    query = query if who is None else query.where(log.c.who == who)
    query = query if what is None else query.where(log.c.what == what)
    return [dict(row) for row in connection.execute(query).mappings()]


def about(row: Mapping[str, Any]) -> str:
    """Return what a change was done to, and what was before and after, in words."""
    about = ", ".join(_told(key, value) for key, value in row["data"].items())
    if row["before"] is None and row["after"] is None:
        return about
    return f"{about}: {_short(row['before'])} → {_short(row['after'])}".lstrip(": ")


def verify(connection: Connection, expected: tuple[Head, ...] = ()) -> Verdict:
    """Go through the whole log and say everything that is wrong with it.

    Args:
        connection: one that reads.
        expected: heads that the log had at some time; each must still be in it.
    """
    faults: list[str] = []
    kept = {one.number: one.digest for one in expected}
    previous, count, last = BEGINNING, 0, Head(0, BEGINNING)
    for row in _all(connection):
        count += 1
        number = last.number + 1
        if row["id"] != number:
            many = "" if row["id"] == number + 1 else f" to {row['id'] - 1}"
            faults.append(f"row {number}{many}: removed")
        if row["digest"] != digest_of(row):
            faults.append(f"row {row['id']}: altered")
        if row["previous"] != previous:
            faults.append(f"row {row['id']}: does not follow the row before it")
        if kept.pop(row["id"], row["digest"]) != row["digest"]:
            faults.append(f"row {row['id']}: is not the one that was there")
        previous = row["digest"]
        last = Head(row["id"], row["digest"] or BEGINNING)
    faults += [f"row {number}: was there, and the log ends before it" for number in kept if number > last.number]
    return Verdict(count, last, faults)


def prepare(connection: Connection) -> None:
    """Seal rows of a release that had no digests yet, and have the database refuse changes from now on."""
    log = tables.audit_log
    guarded = engines.is_only_added_to(connection, log.name)
    if not guarded and connection.execute(select(log.c.id).where(log.c.digest.is_(None))).first() is not None:
        previous = BEGINNING
        for number, row in enumerate(list(_all(connection)), 1):
            sealed = {**row, "id": number, "previous": previous}
            previous = digest_of(sealed)
            change = {"id": number, "previous": sealed["previous"], "digest": previous}
            connection.execute(log.update().where(log.c.id == row["id"]).values(change))
    engines.only_add_to(connection, log.name, _REFUSAL)


def digest_of(row: Any) -> str:
    """Return the SHA-256 of a row's fields as JSON with sorted keys, among them the digest of the row before."""
    fields = {name: row[name] for name in FIELDS}
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class HeadFile:
    """Keeps the newest head in a file beside the database, so that a log that was cut off at its end is found out."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / HEAD_FILE
        self._written: Head | None = None

    def keep(self, newest: Head) -> None:
        """Write the head down if it is a new one."""
        if newest != self._written and newest.number:
            write_durably(self._path, f"{newest}\n".encode(), mode=0o600)
            self._written = newest

    def read(self) -> Head | None:
        """Return the head that was written last, or None if there is no such file.

        Raises:
            InvalidError: the file does not hold one.
        """
        try:
            return Head.parse(self._path.read_text("utf-8").strip())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InvalidError(f"{self._path}: {error}", hint="give the head you wrote down as --expect") from error


def _plain(value: Any) -> Any:
    """Return a value as it comes back from the database: plain JSON, no infinities."""
    return None if value is None else from_json(to_json(value, inf_nan_mode="null"))


def _all(connection: Connection) -> Iterator[Any]:
    log = tables.audit_log
    yield from connection.execution_options(yield_per=1000).execute(select(log).order_by(log.c.id)).mappings()


def _told(key: str, value: Any) -> str:
    moment = key.endswith("_ms") and isinstance(value, int) and value > FIRST_MOMENT_MS
    return f"{key.removesuffix('_ms')} {_utc(value)}" if moment else f"{key} {value}"


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")


def _short(value: Any) -> str:
    if not isinstance(value, dict):
        return "–" if value is None else str(value)
    return str(value["version"]) if value.get("version") else ", ".join(f"{key} {item}" for key, item in value.items())
