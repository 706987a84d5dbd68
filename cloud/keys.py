"""Keys of the bundle repository: makes them, and signs the list of bundles with the release key.

Rules:
- Root and release keys stay with people, offline; snapshot and timestamp keys live on the server.
- Whoever takes over the server can withhold bundles for as long as the timestamp lives, but cannot make one.
- Private keys are files that only their owner can read; an existing key is never overwritten.
"""

from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from cloud.blobs import write_durably
from cloud.errors import ConfigError, ConflictError, RefusedError

ROOT_LIFE = timedelta(days=3650)
"""Devices in the field hold the root they were flashed with; an expired one locks all of them out."""
TARGETS_LIFE = timedelta(days=365)
"""Renewed by every publication."""
ONLINE_ROLES = (Snapshot.type, Timestamp.type)
OFFLINE_KEYS = ("root", "release")
SERVER_FOLDER = "server"
SERIALIZER = JSONSerializer(compact=False)


def create(folder: Path, *, now: datetime) -> Path:
    """Make all keys, the root and an empty signed list of bundles; return the folder to copy to the server.

    Writes `root.pem`, `release.pem` (keep offline), `root.json` (flash it onto devices) and `server/`.

    Raises:
        ConflictError: there are keys already.
        ConfigError: the folder cannot be written.
    """
    server = folder / SERVER_FOLDER
    try:
        server.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        taken = [name for name in OFFLINE_KEYS if (folder / f"{name}.pem").exists()]
        if taken:
            raise ConflictError(f"{folder} holds keys already: {', '.join(taken)}", hint="choose an empty folder")
        signers = {name: CryptoSigner.generate_ed25519() for name in (*OFFLINE_KEYS, *ONLINE_ROLES)}
        root = _root(signers, now)
        targets = Metadata(Targets(expires=now + TARGETS_LIFE))
        targets.sign(signers["release"])
        for name, signer in signers.items():
            place = folder if name in OFFLINE_KEYS else server
            write_durably(place / f"{name}.pem", signer.private_bytes, mode=0o600)
        for place in (folder, server):
            write_durably(place / "root.json", root.to_bytes(SERIALIZER))
        write_durably(server / "targets.json", targets.to_bytes(SERIALIZER))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write keys: {error.strerror}") from error
    return server


def load_signer(path: Path) -> CryptoSigner:
    """Return the signer of a private key in PEM.

    Raises:
        ConfigError: there is no such file, or it is not a key.
    """
    try:
        return CryptoSigner(load_pem_private_key(path.read_bytes(), password=None))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot read the key: {error.strerror}", hint="`lineside-cloud keys init DIR` makes keys"
        ) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: not a private key in PEM: {error}") from error


def with_bundle(current: bytes, *, path: str, digest: str, size_bytes: int, release_key: Path, now: datetime) -> bytes:
    """Return the list of bundles with one more, signed with the release key.

    Raises:
        ConflictError: another bundle stands under this name and version.
        ConfigError: the key is unusable.
        RefusedError: the list was not signed with this key: whoever gave it might slip in bundles of their own.
    """
    signer = load_signer(release_key)
    targets = _signed_with(signer, current)
    known = targets.signed.targets.get(path)
    if known is not None and known.hashes.get("sha256") != digest:
        raise ConflictError(
            f"{path} is published already, with other content",
            hint="a published bundle never changes; raise its version",
        )
    targets.signed.targets[path] = TargetFile(length=size_bytes, hashes={"sha256": digest}, path=path)
    targets.signed.version += 1
    targets.signed.expires = now + TARGETS_LIFE
    targets.sign(signer)
    return targets.to_bytes(SERIALIZER)


def snapshot_of(targets_version: int, *, version: int, expires: datetime) -> Metadata[Snapshot]:
    """Return an unsigned snapshot that names this version of the list of bundles."""
    meta = {"targets.json": MetaFile(version=targets_version)}
    return Metadata(Snapshot(version=version, expires=expires, meta=meta))


def timestamp_of(snapshot_version: int, *, version: int, expires: datetime) -> Metadata[Timestamp]:
    """Return an unsigned timestamp that names this snapshot."""
    meta = MetaFile(version=snapshot_version)
    return Metadata(Timestamp(version=version, expires=expires, snapshot_meta=meta))


def _root(signers: dict[str, CryptoSigner], now: datetime) -> Metadata[Root]:
    root = Root(expires=now + ROOT_LIFE, consistent_snapshot=True)
    root.add_key(signers["root"].public_key, Root.type)
    root.add_key(signers["release"].public_key, Targets.type)
    for role in ONLINE_ROLES:
        root.add_key(signers[role].public_key, role)
    metadata = Metadata(root)
    metadata.sign(signers["root"])
    return metadata


def _signed_with(signer: CryptoSigner, data: bytes) -> Metadata[Targets]:
    key = signer.public_key
    try:
        targets: Metadata[Targets] = Metadata.from_bytes(data)
        key.verify_signature(targets.signatures[key.keyid], targets.signed_bytes)
    except (DeserializationError, UnverifiedSignatureError, KeyError) as error:
        raise RefusedError(
            "the control plane's list of bundles is not signed with the release key that is to sign the new one",
            hint="use the release.pem that was made together with this control plane's root.json",
        ) from error
    return targets
