"""The bundles: takes new ones in, knows which is a model's default, and finds them by name and version.

Rules:
- What is published stands in the signed repository; the table `bundles` follows it and is mended from it at start.
- The default of a model is the bundle approved last: by a rollout that was done, or by `models publish --default`.
- A new default reaches devices that have no bundle of that model yet; others change by rollout only.
"""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Connection, select

from cloud import archive, audit, tables
from cloud.blobs import BlobStore, BlobWriter
from cloud.clock import Clock
from cloud.errors import CloudError, InvalidError, NotFoundError
from cloud.fleet import Fleet
from cloud.store import CloudStore, insert_ignore
from cloud.tuf_repository import TufRepository
from edge.wire.base import BundleRef, target_path, version_key
from edge.wire.manifest import Manifest
from edge.wire.messages import Desired, DesiredBundles

COPY_BYTES = 2**20


@dataclass(frozen=True)
class BundleView:
    """One published bundle."""

    ref: BundleRef
    manifest: dict[str, Any]
    published_at_ms: int
    published_by: str
    state: str
    """`candidate`, `approved` or `retired`."""
    is_default: bool

    def as_json(self) -> dict[str, Any]:
        """Return it as a document for machines, without the manifest."""
        fields = {**self.__dict__, **self.ref.model_dump()}
        return {name: value for name, value in fields.items() if name not in ("ref", "manifest")}


class Registry:
    """Takes bundles in and finds them."""

    def __init__(
        self, store: CloudStore, clock: Clock, blobs: BlobStore, repository: TufRepository, fleet: Fleet
    ) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._fleet = fleet
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
        return True

    def publish(self, bundle: BinaryIO, targets: bytes, *, who: str, default: bool = False) -> BundleView:
        """Take in a bundle with the signed list that names it.

        Raises:
            InvalidError: list or bundle are cut, altered or not what they should be.
            RefusedError: the list is not signed with the release key.
            ConflictError: the name and version are taken, or somebody else has published meanwhile.
        """
        try:
            with self._lock:
                path, digest, size_bytes = self.repository.check(targets)
                self._copy(bundle, digest)
                manifest = self._checked(path, digest)
                self.repository.accept(targets)
                self._keep(path, manifest, digest, size_bytes, who=who)
        except CloudError as error:
            self._note_refusal(who, error)
            raise
        if default:
            self.set_default(manifest.name, manifest.version, who=who, why="published as default")
        return self.bundle(manifest.name, manifest.version)

    def bundles(self, name: str | None = None) -> list[BundleView]:
        """Return the published bundles, by name, newest version first."""
        query = select(tables.bundles)
        if name is not None:
            query = query.where(tables.bundles.c.name == name)
        with self._store.read() as connection:
            rows = connection.execute(query).all()
        defaults = _defaults(rows)
        views = [_view(row, is_default=defaults.get(row.name) == row.digest) for row in rows]
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

    def set_default(self, name: str, version: str, *, who: str, why: str = "") -> BundleRef:
        """Make a bundle the default of its model, and give it to devices that have none of that model yet.

        Raises:
            NotFoundError: it has not been published.
        """
        ref, before = self.bundle(name, version).ref, self.default(name)
        with self._store.write() as connection:
            now_ms = self._clock.now_ms()
            table = tables.bundles
            approved = table.update().where(table.c.digest == ref.digest)
            connection.execute(approved.values(state="approved", approved_at_ms=now_ms))
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

    def _copy(self, bundle: BinaryIO, digest: str) -> None:
        writer = BlobWriter(self.blobs, digest)
        try:
            while chunk := bundle.read(COPY_BYTES):
                writer.write(chunk)
            writer.finish()
        finally:
            writer.discard()

    def _checked(self, path: str, digest: str) -> Manifest:
        try:
            return _manifest_of(path, self.blobs.path(digest))
        except InvalidError:
            self.blobs.remove(digest)
            raise

    def _keep(self, path: str, manifest: Manifest, digest: str, size_bytes: int, *, who: str) -> None:
        now_ms = self._clock.now_ms()
        row = {
            "digest": digest,
            "name": manifest.name,
            "version": manifest.version,
            "size_bytes": size_bytes,
            "manifest": manifest.model_dump(mode="json"),
            "published_at_ms": now_ms,
            "published_by": who[:64],
            "state": "candidate",
        }
        with self._store.write() as connection:
            insert_ignore(connection, tables.bundles, [row])
            data = {"path": path, "digest": digest, "size_bytes": size_bytes}
            audit.record(connection, at_ms=now_ms, who=who, what="bundle_published", data=data)

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


def _manifest_of(path: str, file: Path) -> Manifest:
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


def _view(row: Any, *, is_default: bool) -> BundleView:
    return BundleView(
        ref=BundleRef(name=row.name, version=row.version, digest=row.digest, size_bytes=row.size_bytes),
        manifest=row.manifest,
        published_at_ms=row.published_at_ms,
        published_by=row.published_by,
        state=row.state,
        is_default=is_default,
    )
