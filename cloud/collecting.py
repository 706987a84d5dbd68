"""Removes bundle files that nobody can need any more, and what uploads that were cut off have left.

Rules:
- What may go is decided by `retention`, on one moment of the database, in the transaction that writes the audit log.
- Rollouts and defaults are checked for their file in a transaction as well, so a file cannot go between the two.
- Files that no row names are removed only when they are an hour old: a younger one may be on its way in.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from cloud import audit, tables
from cloud.blobs import BlobStore
from cloud.clock import Clock
from cloud.registry import Registry
from cloud.retention import Held, Verdict, needs, verdicts
from cloud.rollout_state import OPEN
from cloud.store import CloudStore

STRAY_AGE_S = 3600.0
"""Twice the longest upload."""
COLLECTOR = "collector"
"""The name under which files are removed by the control plane itself."""
MAX_STRAYS = 10_000
"""Files without a row that are removed at once; the rest waits for the next time."""


@dataclass
class Collected:
    """What was removed, or would be."""

    dry_run: bool
    kept: list[Verdict] = field(default_factory=list)
    removed: list[Verdict] = field(default_factory=list)
    stray_bundles: int = 0
    stray_inputs: int = 0
    freed_bytes: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it as a document for machines."""
        lists = {name: [one.as_json() for one in getattr(self, name)] for name in ("kept", "removed")}
        return {**self.__dict__, **lists}


class Collector:
    """Removes files. One per control plane."""

    def __init__(self, store: CloudStore, clock: Clock, registry: Registry, inputs: BlobStore, keep_last: int) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._inputs = inputs
        self._keep_last = keep_last

    def collect(self, *, who: str, why: str = "", dry_run: bool = False, keep_last: int | None = None) -> Collected:
        """Remove what is superfluous; return what was removed and what was kept, and why.

        Args:
            who, why: for the audit log.
            dry_run: only say what would be removed.
            keep_last: so many newest versions of every model are kept; the setting if not given.
        """
        done = Collected(dry_run)
        keep = self._keep_last if keep_last is None else keep_last
        with self._registry.lock, self._store.write() as connection:
            for verdict in verdicts(self._held(connection), _needed(connection), keep_last=keep):
                if verdict.kept_for:
                    done.kept.append(verdict)
                    continue
                done.removed.append(verdict)
                done.freed_bytes += verdict.held.size_bytes
                if not dry_run:
                    self._remove(connection, verdict.held, who, why)
            done.stray_bundles = self._strays(self._registry.blobs, self._named(connection), done)
        done.stray_inputs = self._stray_inputs(done)
        return done

    def _held(self, connection: Connection) -> list[Held]:
        table = tables.bundles
        rows = connection.execute(select(table).with_for_update()).all()
        approved = [row for row in rows if row.state == "approved" and row.approved_at_ms is not None]
        defaults = {row.name: row.digest for row in sorted(approved, key=lambda row: row.approved_at_ms)}
        return [
            Held(row.digest, row.name, row.version, row.state, defaults.get(row.name) == row.digest, row.size_bytes)
            for row in rows
            if self._registry.blobs.has(row.digest)
        ]

    def _remove(self, connection: Connection, held: Held, who: str, why: str) -> None:
        data = {"model": held.name, "version": held.version, "digest": held.digest, "size_bytes": held.size_bytes}
        now_ms = self._clock.now_ms()
        audit.record(connection, at_ms=now_ms, who=who, what="bundle_file_removed", why=why, data=data)
        self._registry.blobs.remove(held.digest)
        self._registry.deltas.forget(held.digest)

    def _named(self, connection: Connection) -> set[str]:
        known = set(connection.execute(select(tables.bundles.c.digest)).scalars())
        if self._registry.repository.is_ready:  # signed, and its row is made at the next start
            known |= {digest for _, digest, _ in self._registry.repository.targets()}
        return known

    def _stray_inputs(self, done: Collected) -> int:
        with self._store.read() as connection:
            known = set(connection.execute(select(tables.inputs.c.digest)).scalars())
        return self._strays(self._inputs, known, done)

    def _strays(self, blobs: BlobStore, known: set[str], done: Collected) -> int:
        count, now_s = 0, time.time()
        for digest, size_bytes, changed_s in blobs.files():
            if digest in known or now_s - changed_s < STRAY_AGE_S or count >= MAX_STRAYS:
                continue
            count += 1
            done.freed_bytes += size_bytes
            if not done.dry_run:
                blobs.remove(digest)
        return count


def _needed(connection: Connection) -> dict[str, str]:
    devices, state, desired, rollouts = tables.devices.c, tables.device_state.c, tables.desired.c, tables.rollouts.c
    in_fleet = devices.revoked_at_ms.is_(None)
    reports = (
        select(state.device, state.reported)
        .join(tables.devices, devices.device == state.device)
        .where(in_fleet, state.reported.is_not(None))
    )
    wanted = select(desired.device, desired.body).join(tables.devices, devices.device == desired.device).where(in_fleet)
    open_ones = select(rollouts.id, rollouts.plan, rollouts.state).where(rollouts.status.in_(OPEN))
    return needs(
        _pairs((row.device, row.reported) for row in connection.execute(reports)),
        _pairs((row.device, row.body) for row in connection.execute(wanted)),
        {row.id: [row.plan, row.state] for row in connection.execute(open_ones)},
    )


def _pairs(rows: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: document or {} for name, document in rows}
