"""Keys and signatures of bundles, offline: a signature beside the file, or an entry in the signed list of bundles.

Rules:
- Keys are Ed25519 in PEM, as `lineside-cloud keys init` makes them; either program's release key works in the other.
- A signature is over name, version, digest and size, so that it cannot be moved to another file.
- A private key is readable by its owner only, and an existing one is never overwritten.
- What devices trust is the list that the root names (TUF); the signature beside the file is for people and archives.
"""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from edge.errors import ConfigError, UpdateError
from edge.wire.base import BundleRef

KEY_NAME, PUBLIC_NAME = "release.pem", "release.pub.pem"
_TARGETS_LIFE = timedelta(days=365)


def make(folder: Path) -> Path:
    """Make a key pair; return the private key's path.

    Raises:
        ConfigError: there is one already, or the folder cannot be written.
    """
    from securesystemslib.signer import CryptoSigner

    path = folder / KEY_NAME
    if path.exists():
        raise ConfigError(f"{path} is there already", hint="a key is never overwritten; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        signer = CryptoSigner.generate_ed25519()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(signer.private_bytes)
        (folder / PUBLIC_NAME).write_text(public_pem(path))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write keys: {error.strerror}") from error
    return path


def public_pem(key: Path) -> str:
    """Return the public part of a key, in PEM; of a public key that is itself."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return str(_public_of(key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def key_id(key: Path) -> str:
    """Return the id under which TUF metadata names this key, private or public."""
    from securesystemslib.signer import SSlibKey

    return str(SSlibKey.from_crypto(_public_of(key)).keyid)


def sign(bundle: Path, key: Path) -> Path:
    """Write the signature of a bundle beside it; return its path (`<bundle>.sig.json`)."""
    from export.pack import read

    ref = read(bundle).ref
    signer = _signer(key)
    signature = signer.sign(_payload(ref))
    content = {
        "signed": ref.model_dump(),
        "keyid": signer.public_key.keyid,
        "public_key": public_pem(key),
        "signature": signature.signature,
    }
    path = signature_of(bundle)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def signature_of(bundle: Path) -> Path:
    """Return where the signature of a bundle lies."""
    return bundle.with_name(bundle.name + ".sig.json")


def verify(bundle: Path, public: Path | None = None) -> str:
    """Check the signature beside a bundle; return the id of the key that made it.

    Args:
        bundle: the file.
        public: the public key to trust, in PEM; without one only that the signature fits its own key is known.

    Raises:
        UpdateError: there is no signature, it is of another file, by another key, or does not fit.
    """
    from securesystemslib.exceptions import UnverifiedSignatureError
    from securesystemslib.signer import Signature, SSlibKey

    from export.pack import read

    ref = read(bundle).ref
    found = _read_signature(signature_of(bundle))
    if found.get("signed") != ref.model_dump():
        raise UpdateError(f"{bundle.name}: its signature is of another file: {found.get('signed')}")
    pem = public.read_text() if public is not None else str(found["public_key"])
    key = SSlibKey.from_crypto(_public(pem))
    if public is not None and found["keyid"] != key.keyid:
        raise UpdateError(f"{bundle.name}: signed with key {str(found['keyid'])[:12]}, expected {key.keyid[:12]}")
    try:
        key.verify_signature(Signature(key.keyid, str(found["signature"])), _payload(ref))
    except UnverifiedSignatureError as error:
        raise UpdateError(f"{bundle.name}: its signature does not fit") from error
    return str(key.keyid)


def into_list(bundle: Path, key: Path, targets: Path, out: Path) -> int:
    """Add a bundle to the signed list of bundles (TUF targets), and sign it; return the list's new version.

    Args:
        bundle: the file.
        key: the release key that signed the list.
        targets: the current `targets.json`.
        out: where the next one goes.

    Raises:
        ConfigError: the key is not the list's.
        UpdateError: another file stands there under this name and version, or the list is damaged.
    """
    from securesystemslib.exceptions import UnverifiedSignatureError
    from tuf.api.metadata import Metadata, TargetFile, Targets
    from tuf.api.serialization import DeserializationError
    from tuf.api.serialization.json import JSONSerializer

    from export.pack import read

    ref, signer = read(bundle).ref, _signer(key)
    try:
        listed: Metadata[Targets] = Metadata.from_bytes(targets.read_bytes())
        own = listed.signatures[signer.public_key.keyid]
        signer.public_key.verify_signature(own, listed.signed_bytes)
    except (OSError, DeserializationError) as error:
        raise UpdateError(f"{targets}: not a signed list of bundles: {error}") from error
    except (KeyError, UnverifiedSignatureError) as error:
        raise ConfigError(f"{targets} was not signed with {key}", hint="use the release key of this fleet") from error
    path = ref.target_path
    known = listed.signed.targets.get(path)
    if known is not None and known.hashes.get("sha256") != ref.digest:
        raise UpdateError(f"{path} is in the list already, with other content", hint="raise the bundle's version")
    listed.signed.targets[path] = TargetFile(length=ref.size_bytes, hashes={"sha256": ref.digest}, path=path)
    listed.signed.version += 1
    listed.signed.expires = datetime.now(UTC).replace(microsecond=0) + _TARGETS_LIFE
    listed.sign(signer)
    out.write_bytes(listed.to_bytes(JSONSerializer(compact=False)))
    return int(listed.signed.version)


def _payload(ref: BundleRef) -> bytes:
    return json.dumps(ref.model_dump(), sort_keys=True, separators=(",", ":")).encode()


def _public_of(key: Path) -> Any:
    """Return the public key of a file that holds either part."""
    if b"PUBLIC KEY" in (key.read_bytes() if key.is_file() else b""):
        return _public(key.read_text())
    return _private(key).public_key()


def _private(key: Path) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(key.read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(
            f"{key}: cannot read the key: {error.strerror}", hint="`lineside-export keys make DIR` makes one"
        ) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{key}: not a private key in PEM: {error}") from error


def _signer(key: Path) -> Any:
    from securesystemslib.signer import CryptoSigner

    return CryptoSigner(_private(key))


def _public(pem: str) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return load_pem_public_key(pem.encode())
    except ValueError as error:
        raise ConfigError(f"not a public key in PEM: {error}") from error


def _read_signature(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise UpdateError(f"{path}: there is no signature", hint="`lineside-export sign BUNDLE --key KEY`") from error
    except ValueError as error:
        raise UpdateError(f"{path}: not a signature: {error}") from error
    if not isinstance(found, dict) or not {"signed", "keyid", "public_key", "signature"} <= set(found):
        raise UpdateError(f"{path}: not a signature")
    return found
