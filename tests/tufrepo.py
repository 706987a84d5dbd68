"""A real TUF repository in memory: the test changes what is signed, then publishes."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

ROLES = ("root", "targets", "snapshot", "timestamp")


class TufRepo:
    """Metadata with one key per role; `publish` gives the files a server would serve."""

    def __init__(self) -> None:
        expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
        self.root = Root(expires=expires, consistent_snapshot=True)
        self.targets = Targets(expires=expires)
        self.snapshot = Snapshot(expires=expires)
        self.timestamp = Timestamp(expires=expires)
        self.signers: dict[str, list[Signer]] = {}
        self.old_root_signers: list[Signer] = []
        """Sign a new root too, as its predecessor demands."""
        for role in ROLES:
            self.set_key(role)
        self.files: dict[str, bytes] = {}

    def set_key(self, role: str) -> None:
        """Give a role a new key."""
        if role in self.signers:
            for signer in self.signers[role]:
                self.root.revoke_key(signer.public_key.keyid, role)
            if role == "root":
                self.old_root_signers = list(self.signers[role])
        signer = CryptoSigner.generate_ed25519()
        self.root.add_key(signer.public_key, role)
        self.signers[role] = [signer]

    def add(self, path: str, data: bytes) -> str:
        """Sign a file from the next publication on; return its digest."""
        self.targets.targets[path] = TargetFile.from_data(path, data, ["sha256"])
        return hashlib.sha256(data).hexdigest()

    def publish(self, *, new_root: bool = False) -> dict[str, bytes]:
        """Sign everything anew with the next version and return all files by name."""
        if new_root:
            self.root.version += 1
        self.files[f"{self.root.version}.root.json"] = self.sign("root")
        self.files[f"{self.targets.version}.targets.json"] = self.sign("targets")
        self.snapshot.meta["targets.json"] = MetaFile(self.targets.version)
        self.files[f"{self.snapshot.version}.snapshot.json"] = self.sign("snapshot")
        self.timestamp.snapshot_meta = MetaFile(self.snapshot.version)
        self.files["timestamp.json"] = self.sign("timestamp")
        return dict(self.files)

    def step(self) -> None:
        """Next version of everything but root."""
        for signed in (self.targets, self.snapshot, self.timestamp):
            signed.version += 1

    def sign(self, role: str) -> bytes:
        """Return one role's metadata as it stands, signed by its keys."""
        signed: Any = getattr(self, role)
        metadata: Metadata[Any] = Metadata(signed)
        for signer in [*self.signers[role], *(self.old_root_signers if role == "root" else [])]:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()
