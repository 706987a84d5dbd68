"""The bundles: takes new ones in, knows which is a model's default, and finds them by name and version.

Rules:
- What is published stands in the signed repository; the table `bundles` follows it and is mended from it at start.
- The default of a model is the bundle made so last: by a rollout that was done, or by a person.
- A new default reaches devices that have no bundle of that model yet; others change by rollout only.
- What may be done with a version follows from its state (`lifecycle`); every move names who and why in the audit log,
  in the same transaction.
- The file of a version may go (`collecting`), its row and its place in the signed list never do: the same file may be
  uploaded again, and no other one.
"""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Connection, select

from cloud import archive, audit, lifecycle, tables
from cloud.archive import AnyManifest
from cloud.blobs import BlobStore, BlobWriter
from cloud.clock import Clock
from cloud.deltas import DeltaStore
from cloud.errors import CloudError, ConflictError, InvalidError, NotFoundError
from cloud.fleet import Fleet
from cloud.rollout_state import OPEN
from cloud.store import CloudStore, insert_ignore
from cloud.tuf_repository import TufRepository
from edge.wire.base import BundleRef, target_path, version_key
from edge.wire.messages import Desired, DesiredBundles

COPY_BYTES = 2**20


@dataclass(frozen=True)
class BundleView:
    """One published bundle."""

    ref: BundleRef
    manifest: dict[str, Any]
    published_at_ms: int
    published_by: str
    state: lifecycle.State
    is_default: bool
    has_file: bool
    """Whether the file is still here; a superfluous one may have been removed."""

    @property
    def audit(self) -> lifecycle.Audit:
        """What its own audit report says."""
        return lifecycle.audit_of(self.manifest)

    def as_json(self) -> dict[str, Any]:
        """Return it as a document for machines, without the manifest."""
        fields = {**self.__dict__, **self.ref.model_dump(), "audit": self.audit}
        return {name: value for name, value in fields.items() if name not in ("ref", "manifest")}


class Registry:
    """Takes bundles in and finds them."""

    def __init__(
        self,
        store: CloudStore,
        clock: Clock,
        blobs: BlobStore,
        repository: TufRepository,
        fleet: Fleet,
        deltas: DeltaStore,
    ) -> None:
        self._store = store
        self._clock = clock
        self._fleet = fleet
        self.lock = threading.RLock()
        """Held while files of bundles come or go."""
        self.deltas = deltas
        self.blobs = blobs
        self.repository = repository

    def open(self) -> bool:
        """Open the repository and mend the table from it; return whether bundles can be published.

        Raises:
            ConfigError: its keys are not usable.
        """
        if not self.repository.open():
            return False
        known = {bundle.ref.digest for bundle in self.bundles()}
        for path, digest, size_bytes in self.repository.targets():
            if digest not in known and self.blobs.has(digest):
                manifest = archive.read_manifest(self.blobs.path(digest))
                self._keep(path, manifest, digest, size_bytes, who="recovery")
        self._note_audits()
        return True

    def publish(
        self, bundle: BinaryIO, targets: bytes, *, who: str, default: bool = False, unaudited: str = ""
    ) -> BundleView:
        """Take in a bundle with the signed list that names it.

        Args:
            bundle, targets: the file, and the list.
            who: who publishes it.
            default: make it the default of its model as well.
            unaudited: why it may become that without an audit that passed.

        Raises:
            InvalidError: list or bundle are cut, altered or not what they should be.
            RefusedError: the list is not signed with the release key.
            ConflictError: the name and version are taken, or somebody else has published meanwhile.
        """
        try:
            with self.lock:
                path, digest, size_bytes = self.repository.check(targets)
                self._copy(bundle, digest)
                manifest = self._checked(path, digest)
                if default:
                    _check_approval(manifest.name, manifest.version, manifest.model_dump(mode="json"), unaudited)
                self.repository.accept(targets)
                self._keep(path, manifest, digest, size_bytes, who=who)
        except CloudError as error:
            self._note_refusal(who, error)
            raise
        if default:
            why = "published as default"
            self.set_default(manifest.name, manifest.version, who=who, why=why, unaudited=unaudited)
        return self.bundle(manifest.name, manifest.version)

    def bundles(self, name: str | None = None) -> list[BundleView]:
        """Return the published bundles, by name, newest version first."""
        query = select(tables.bundles)
        if name is not None:
            query = query.where(tables.bundles.c.name == name)
        with self._store.read() as connection:
            rows = connection.execute(query).all()
        defaults = _defaults(rows)
        views = [
            _view(row, is_default=defaults.get(row.name) == row.digest, has_file=self.blobs.has(row.digest))
            for row in rows
        ]
        views.sort(key=lambda view: version_key(view.ref.version), reverse=True)
        return sorted(views, key=lambda view: view.ref.name)

    def bundle(self, name: str, version: str) -> BundleView:
        """Return one bundle.

        Raises:
            NotFoundError: it has not been published.
        """
        for view in self.bundles(name):
            if view.ref.version == version:
                return view
        have = ", ".join(view.ref.version for view in self.bundles(name)) or "none"
        raise NotFoundError(f"{name} {version} has not been published", hint=f"versions of {name}: {have}")

    def target_path(self, digest: str) -> str | None:
        """Return the name under which the bundle with this digest is published, or None."""
        bundles = tables.bundles.c
        query = select(bundles.name, bundles.version).where(bundles.digest == digest)
        with self._store.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else target_path(row.name, row.version)

    def default(self, name: str) -> BundleRef | None:
        """Return the bundle that a new device gets for this model, if there is one."""
        return next((view.ref for view in self.bundles(name) if view.is_default), None)

    def set_default(self, name: str, version: str, *, who: str, why: str = "", unaudited: str = "") -> BundleRef:
        """Make a bundle the default of its model, and give it to devices that have none of that model yet.

        Raises:
            NotFoundError: it has not been published.
            ConflictError: it was retired, its file is gone, or it is unaudited and no reason is given.
        """
        ref, before = self.bundle(name, version).ref, self.default(name)
        with self._store.write() as connection:
            now_ms = self._clock.now_ms()
            row = self._with_file(connection, ref)
            self._approve(connection, row, who, why, unaudited)
            table = tables.bundles
            connection.execute(table.update().where(table.c.digest == ref.digest).values(approved_at_ms=now_ms))
            audit.record(
                connection,
                at_ms=now_ms,
                who=who,
                what="bundle_made_default",
                why=why,
                data={"model": name},
                before=before and before.model_dump(),
                after=ref.model_dump(),
            )
            changed = [
                self._fleet.change_desired(connection, device, lambda desired: with_default(desired, ref))
                for device in _devices_without(connection, name)
            ]
        self._fleet.publish(changed)
        return ref

    def approve(self, name: str, version: str, *, who: str, why: str, unaudited: str = "") -> BundleView:
        """Approve a version: it has shown itself, its file stays.

        Raises:
            NotFoundError: it has not been published.
            ConflictError: it was retired, or it is unaudited and no reason is given.
        """
        ref = self.bundle(name, version).ref
        with self._store.write() as connection:
            self._approve(connection, _locked(connection, ref), who, why, unaudited)
        return self.bundle(name, version)

    def retire(self, name: str, version: str, *, who: str, why: str) -> BundleView:
        """Retire a version: it is not given out any more; devices that run it go on.

        Raises:
            NotFoundError: it has not been published.
            ConflictError: it was retired before, is the default, or a rollout of it is open.
        """
        view = self.bundle(name, version)
        if view.is_default:
            hint = f"make another version the default first: lineside-cloud models approve {name} VERSION --default"
            raise ConflictError(f"{name} {version} is the default: new devices would get it", hint=hint)
        with self._store.write() as connection:
            row = _locked(connection, view.ref)
            rollouts = tables.rollouts.c
            query = select(rollouts.id).where(rollouts.digest == view.ref.digest, rollouts.status.in_(OPEN))
            if (rollout := connection.execute(query.limit(1)).scalar()) is not None:
                hint = f"wait for its end, or `lineside-cloud rollouts abort {rollout} --why …`"
                raise ConflictError(f"{name} {version} is being rolled out by {rollout}", hint=hint)
            self._move(connection, row, "retired", who, why)
        return self.bundle(name, version)

    def allow_rollout(self, connection: Connection, ref: BundleRef, *, who: str, unaudited: str = "") -> None:
        """Make sure, within the transaction that starts it, that a version may be rolled out.

        Raises:
            ConflictError: it was retired, its file is gone, or its audit did not pass and no reason is given.
        """
        row = self._with_file(connection, ref)
        found = lifecycle.audit_of(row.manifest)
        if why_not := lifecycle.why_not_rolled_out(row.state, found, unaudited=unaudited):
            hint = "publish a newer version" if row.state == "retired" else lifecycle.HINT
            raise ConflictError(f"{ref.name} {ref.version} cannot be rolled out: {why_not}", hint=hint)
        if row.state == "candidate":
            now_ms, data = self._clock.now_ms(), {**ref.model_dump(), "audit": found}
            audit.record(
                connection, at_ms=now_ms, who=who, what="bundle_rolled_out_unaudited", why=unaudited, data=data
            )

    def put_back(self, bundle: BinaryIO, name: str, version: str, *, who: str) -> BundleView:
        """Take in the file of a version whose file was removed.

        Raises:
            NotFoundError: it has not been published.
            InvalidError: it is another file.
        """
        ref = self.bundle(name, version).ref
        with self.lock:
            self._copy(bundle, ref.digest)
        with self._store.write() as connection:
            now_ms = self._clock.now_ms()
            audit.record(connection, at_ms=now_ms, who=who, what="bundle_file_put_back", data=ref.model_dump())
        return self.bundle(name, version)

    def _with_file(self, connection: Connection, ref: BundleRef) -> Any:
        row = _locked(connection, ref)
        if not self.blobs.has(ref.digest):
            hint = "publish the same file again: lineside-cloud models publish BUNDLE --keys DIR"
            raise ConflictError(f"the file of {ref.name} {ref.version} was removed", hint=hint)
        return row

    def _approve(self, connection: Connection, row: Any, who: str, why: str, unaudited: str) -> None:
        event = lifecycle.approval(row.state, unaudited=unaudited)
        if lifecycle.after(event, row.state) is None and row.state == "candidate":
            _check_approval(row.name, row.version, row.manifest, unaudited)
        reason = f"{why}; unaudited: {unaudited}" if event == "overridden" else why
        self._move(connection, row, event, who, reason)

    def _move(self, connection: Connection, row: Any, event: lifecycle.Event, who: str, why: str) -> None:
        """Apply one event of the table of states, with its line in the audit log."""
        state = lifecycle.after(event, row.state)
        if state is None:
            raise ConflictError(f"{row.name} {row.version} is {row.state}: it cannot be {event}")
        table = tables.bundles
        connection.execute(table.update().where(table.c.digest == row.digest).values(state=state))
        audit.record(
            connection,
            at_ms=self._clock.now_ms(),
            who=who,
            what=f"bundle_{'approved' if event == 'overridden' else event}",
            why=why,
            data={"model": row.name, "version": row.version, "digest": row.digest},
            before={"state": row.state},
            after={"state": state},
        )

    def _note_audits(self) -> None:
        """Bring versions of a release that did not know of audits to the state that theirs gives them."""
        table = tables.bundles
        with self._store.write() as connection:
            for row in connection.execute(select(table).where(table.c.state == "candidate")).all():
                if lifecycle.first_state(row.manifest) == "audited":
                    self._move(connection, row, "audited", "recovery", "its manifest holds an audit that passed")

    def _copy(self, bundle: BinaryIO, digest: str) -> None:
        writer = BlobWriter(self.blobs, digest)
        try:
            while chunk := bundle.read(COPY_BYTES):
                writer.write(chunk)
            writer.finish()
        finally:
            writer.discard()

    def _checked(self, path: str, digest: str) -> AnyManifest:
        try:
            return _manifest_of(path, self.blobs.path(digest))
        except InvalidError:
            self.blobs.remove(digest)
            raise

    def _keep(self, path: str, manifest: AnyManifest, digest: str, size_bytes: int, *, who: str) -> None:
        now_ms = self._clock.now_ms()
        row = {
            "digest": digest,
            "name": manifest.name,
            "version": manifest.version,
            "size_bytes": size_bytes,
            "manifest": manifest.model_dump(mode="json"),
            "published_at_ms": now_ms,
            "published_by": who[:64],
            "state": lifecycle.first_state(manifest.model_dump(mode="json")),
        }
        with self._store.write() as connection:
            insert_ignore(connection, tables.bundles, [row])
            data = {"path": path, "digest": digest, "size_bytes": size_bytes}
            after = {"state": row["state"], "audit": lifecycle.audit_of(manifest.model_dump(mode="json"))}
            audit.record(connection, at_ms=now_ms, who=who, what="bundle_published", data=data, after=after)

    def _note_refusal(self, who: str, error: Exception) -> None:
        with self._store.write() as connection:
            audit.record(connection, at_ms=self._clock.now_ms(), who=who, what="bundle_refused", why=str(error))


def with_default(desired: Desired, ref: BundleRef) -> Desired:
    """Return the desired state with this bundle active, unless one of its model is active already."""
    slots = desired.bundles.get(ref.name, DesiredBundles())
    if slots.active is not None:
        return desired
    slots = slots.model_copy(update={"active": ref})
    return desired.model_copy(update={"bundles": {**desired.bundles, ref.name: slots}})


def _check_approval(name: str, version: str, manifest: dict[str, Any], unaudited: str) -> None:
    """Make sure that a version may be approved: its audit passed, or somebody says why not."""
    found = lifecycle.audit_of(manifest)
    if found not in lifecycle.PROVEN and not unaudited.strip():
        raise ConflictError(f"{name} {version} cannot be approved: {lifecycle.AUDIT_WORDS[found]}", hint=lifecycle.HINT)


def _locked(connection: Connection, ref: BundleRef) -> Any:
    table = tables.bundles
    return connection.execute(select(table).where(table.c.digest == ref.digest).with_for_update()).one()


def _manifest_of(path: str, file: Path) -> AnyManifest:
    manifest = archive.read_manifest(file)
    if target_path(manifest.name, manifest.version) != path:
        raise InvalidError(f"targets name it {path}, its manifest says {manifest.name} {manifest.version}")
    return manifest


def _devices_without(connection: Connection, model: str) -> list[str]:
    devices, desired = tables.devices, tables.desired
    query = (
        select(devices.c.device, devices.c.models, desired.c.body)
        .outerjoin(desired, desired.c.device == devices.c.device)
        .where(devices.c.revoked_at_ms.is_(None))
    )
    return [
        row.device
        for row in connection.execute(query)
        if model in row.models and not ((row.body or {}).get("bundles", {}).get(model) or {}).get("active")
    ]


def _defaults(rows: Any) -> dict[str, str]:
    approved = [row for row in rows if row.state == "approved" and row.approved_at_ms is not None]
    return {row.name: row.digest for row in sorted(approved, key=lambda row: row.approved_at_ms)}


def _view(row: Any, *, is_default: bool, has_file: bool) -> BundleView:
    return BundleView(
        ref=BundleRef(
            name=row.name,
            version=row.version,
            digest=row.digest,
            size_bytes=row.size_bytes,
            kind=row.manifest.get("kind", "model"),
        ),
        manifest=row.manifest,
        published_at_ms=row.published_at_ms,
        published_by=row.published_by,
        state=row.state,
        is_default=is_default,
        has_file=has_file,
    )
