"""The signed repository on disk: checks a new list of bundles, and keeps snapshot and timestamp current.

Rules:
- A list of bundles counts only with the signatures that the root asks for; the server cannot make one.
- A list may add bundles; it may not change or drop one that was published.
- Files appear in the order targets, snapshot, timestamp: replacing the timestamp is the moment of publication,
  so a crash before it leaves the repository as it was.
"""

import logging
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from cloud import keys
from cloud.blobs import write_durably
from cloud.clock import Clock
from cloud.errors import ConfigError, ConflictError, InvalidError, NotFoundError, RefusedError, UnavailableError
from cloud.shelf import TIMESTAMP, FolderShelf, Shelf

log = logging.getLogger(__name__)

METADATA_NAME = re.compile(r"(timestamp|[1-9]\d{0,8}\.(root|snapshot|targets))\.json")
MAX_TARGETS_BYTES = 4 * 2**20
"""Some 20,000 bundles; a longer list is a mistake."""


class TufRepository:
    """The metadata files that devices fetch."""

    def __init__(
        self,
        folder: Path,
        keys_dir: Path,
        clock: Clock,
        *,
        timestamp_life: timedelta,
        snapshot_life: timedelta,
        shelf: Shelf | None = None,
    ) -> None:
        self._folder = folder
        self._keys_dir = keys_dir
        self._clock = clock
        self._timestamp_life = timestamp_life
        self._snapshot_life = snapshot_life
        self._lock = threading.Lock()
        self._shelf = shelf or FolderShelf()

    def open(self) -> bool:
        """Make the repository from the server's keys if it is not there yet; return whether it can be used.

        Raises:
            ConfigError: the keys do not belong to the root, or are not usable.
        """
        if not (self._keys_dir / "root.json").exists():
            self._shelf.pull()
            return self.is_ready
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._lock, self._shelf.signing():
            self._install_root()
            if not self.is_ready:
                data = (self._keys_dir / "targets.json").read_bytes()
                targets = self._parsed(data)
                self._verify(targets)
                write_durably(self._folder / f"{targets.signed.version}.targets.json", data)
                self._sign(targets.signed.version)
        self.refresh()
        return True

    @property
    def is_ready(self) -> bool:
        """Whether there is anything to serve."""
        return (self._folder / "timestamp.json").exists()

    def metadata_path(self, name: str) -> Path:
        """Return the file that holds this metadata.

        Raises:
            NotFoundError: there is none.
        """
        path = self._folder / name
        if name == TIMESTAMP or not path.exists():
            self._shelf.pull()
        if METADATA_NAME.fullmatch(name) is None or not path.exists():
            raise NotFoundError(f"no metadata is called {name[:80]!r}")
        return path

    def targets_bytes(self) -> bytes:
        """Return the current list of bundles as signed.

        Raises:
            UnavailableError: the repository has not been set up.
        """
        self._shelf.pull()
        if not self.is_ready:
            raise UnavailableError(
                "the registry has no keys yet",
                hint=f"run `lineside-cloud keys init DIR`, copy DIR/server/* to {self._keys_dir}, start again",
            )
        return self._current_targets()

    def targets(self) -> Iterator[tuple[str, str, int]]:
        """Give path, SHA-256 and size of every published bundle."""
        for path, target in self._parsed(self.targets_bytes()).signed.targets.items():
            yield path, target.hashes["sha256"], target.length

    def check(self, data: bytes) -> tuple[str, str, int]:
        """Check a new list of bundles; return path, SHA-256 and size of the one that it adds.

        Raises:
            InvalidError: it is not one, has run out, or adds none or several.
            RefusedError: its signatures are not those that the root asks for.
            ConflictError: it is not the next version, or changes what is published.
        """
        if len(data) > MAX_TARGETS_BYTES:
            raise InvalidError(f"targets: expected at most {MAX_TARGETS_BYTES} bytes, got {len(data)}")
        new, current = self._parsed(data), self._parsed(self.targets_bytes())
        self._verify(new)
        self._follows(current.signed, new.signed)
        added = [path for path in new.signed.targets if path not in current.signed.targets]
        if len(added) != 1:
            raise InvalidError(f"targets: expected exactly one new bundle, got {len(added)}")
        target = new.signed.targets[added[0]]
        digest = target.hashes.get("sha256", "")
        if re.fullmatch(r"[0-9a-f]{64}", digest) is None:
            raise InvalidError(f"targets: {added[0]}: expected a SHA-256, got {sorted(target.hashes)}")
        return added[0], digest, target.length

    def accept(self, data: bytes) -> None:
        """Publish a list that has passed `check`; from here on devices see it.

        Raises:
            ConflictError: somebody else has published since it was checked.
        """
        with self._lock, self._shelf.signing():
            new = self._parsed(data).signed
            version = new.version
            self._follows(self._parsed(self._current_targets()).signed, new)
            write_durably(self._folder / f"{version}.targets.json", data)
            self._sign(version)

    def refresh(self) -> bool:
        """Sign snapshot and timestamp anew when half their life is over; return whether that was done."""
        if not self.is_ready or not (self._keys_dir / "timestamp.pem").exists():
            return False
        self._shelf.pull()
        if not self._is_half_over():
            return False
        with self._lock, self._shelf.signing():
            now = self._now()
            snapshot, timestamp = self._snapshot(), self._timestamp()
            if snapshot.signed.expires - now < self._snapshot_life / 2:
                self._sign(snapshot.signed.meta["targets.json"].version)
            elif timestamp.signed.expires - now < self._timestamp_life / 2:
                self._write_timestamp(snapshot.signed.version)
            else:
                return False
        return True

    def _is_half_over(self) -> bool:
        now = self._now()
        left, life = self._snapshot().signed.expires - now, self._snapshot_life
        return left < life / 2 or self._timestamp().signed.expires - now < self._timestamp_life / 2

    def _current_targets(self) -> bytes:
        version = self._snapshot().signed.meta["targets.json"].version
        return (self._folder / f"{version}.targets.json").read_bytes()

    def _install_root(self) -> None:
        data = (self._keys_dir / "root.json").read_bytes()
        try:
            root: Metadata[Root] = Metadata.from_bytes(data)
            if not isinstance(root.signed, Root):
                raise ConfigError(f"{self._keys_dir / 'root.json'}: expected a root, got {root.signed.type}")
            root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
        except (DeserializationError, RepositoryError) as error:
            raise ConfigError(f"{self._keys_dir / 'root.json'}: not a signed root: {error}") from error
        place = self._folder / f"{root.signed.version}.root.json"
        if place.exists() and place.read_bytes() != data:
            raise ConfigError(
                f"{self._keys_dir / 'root.json'} differs from the root that devices got from this server",
                hint="put the old keys back, or start with an empty data folder",
            )
        if not place.exists():
            write_durably(place, data)

    def _root(self) -> Root:
        newest = max(self._folder.glob("*.root.json"), key=lambda path: int(path.name.split(".")[0]))
        root: Metadata[Root] = Metadata.from_bytes(newest.read_bytes())
        return root.signed

    def _snapshot(self) -> Metadata[Snapshot]:
        version = self._timestamp().signed.snapshot_meta.version
        return Metadata.from_bytes((self._folder / f"{version}.snapshot.json").read_bytes())

    def _timestamp(self) -> Metadata[Timestamp]:
        return Metadata.from_bytes((self._folder / "timestamp.json").read_bytes())

    def _parsed(self, data: bytes) -> Metadata[Targets]:
        try:
            metadata: Metadata[Targets] = Metadata.from_bytes(data)
        except (DeserializationError, RecursionError) as error:
            raise InvalidError(f"targets: not signed metadata: {error}") from error
        if not isinstance(metadata.signed, Targets):
            raise InvalidError(f"targets: expected a list of bundles, got {metadata.signed.type}")
        return metadata

    def _verify(self, targets: Metadata[Targets]) -> None:
        try:
            self._root().verify_delegate(Targets.type, targets.signed_bytes, targets.signatures)
        except (RepositoryError, ValueError) as error:
            raise RefusedError(
                "targets: not signed with the release key that this fleet's root names",
                hint="sign with the release.pem that was made together with the server's root.json",
            ) from error

    def _follows(self, current: Targets, new: Targets) -> None:
        if new.version != current.version + 1:
            raise ConflictError(
                f"targets: expected version {current.version + 1}, got {new.version}",
                hint="somebody else has published meanwhile; run the command again",
            )
        if new.is_expired(self._now()):
            raise InvalidError(f"targets: ran out at {new.expires.isoformat()}")
        if new.delegations is not None:
            raise InvalidError("targets: expected no delegations")
        for path, target in current.targets.items():
            if new.targets.get(path) != target:
                raise ConflictError(
                    f"{path} is published already, with other content" if path in new.targets else f"{path} is missing",
                    hint="a published bundle never changes; raise its version",
                )

    def _sign(self, targets_version: int) -> None:
        version = self._snapshot().signed.version + 1 if self.is_ready else 1
        expires = self._now() + self._snapshot_life
        snapshot = keys.snapshot_of(targets_version, version=version, expires=expires)
        snapshot.sign(keys.load_signer(self._keys_dir / "snapshot.pem"))
        write_durably(self._folder / f"{version}.snapshot.json", snapshot.to_bytes(keys.SERIALIZER))
        self._write_timestamp(version)

    def _write_timestamp(self, snapshot_version: int) -> None:
        version = self._timestamp().signed.version + 1 if self.is_ready else 1
        expires = self._now() + self._timestamp_life
        timestamp = keys.timestamp_of(snapshot_version, version=version, expires=expires)
        timestamp.sign(keys.load_signer(self._keys_dir / "timestamp.pem"))
        write_durably(self._folder / "timestamp.json", timestamp.to_bytes(keys.SERIALIZER))
        log.info("signed timestamp %d, valid until %s", version, expires.isoformat())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_ms() // 1000, tz=UTC)
