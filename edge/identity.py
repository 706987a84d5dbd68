"""Who this device is: its key, made on the device and never sent, and what it was given at enrolment.

Rules:
- The private key and the credentials are files of mode 0600; the key is made once and then only read.
- Reading the identity needs no cryptography library: a running daemon does not sign anything.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from edge.errors import ConfigError, StoreError
from edge.files import read_checked_json, write_atomic, write_checked_json
from edge.wire.base import Name, WireModel
from edge.wire.http import BrokerAddress

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_FILE = "device.key"
IDENTITY_FILE = "identity.json"


class Identity(WireModel):
    """What enrolment gave the device."""

    device: Name
    public_key: str
    """Raw Ed25519 public key, hexadecimal."""
    cloud_url: str
    broker: BrokerAddress
    token: str
    """Bearer token for the device's HTTP calls."""
    enrolled_at_ms: int


def load_identity(directory: Path) -> Identity | None:
    """Return the identity that enrolment left in `directory`, or None if there was none yet.

    Raises:
        ConfigError: it is there and damaged.
    """
    path = directory / IDENTITY_FILE
    try:
        value = read_checked_json(path)
        return None if value is None else Identity.model_validate(value)
    except (StoreError, ValidationError) as error:
        raise ConfigError(f"{path} cannot be used: {error}", hint="remove it and enrol the device again") from error


def save_identity(directory: Path, identity: Identity) -> None:
    """Keep the identity.

    Raises:
        StoreError: the disk does not take it.
    """
    write_checked_json(directory / IDENTITY_FILE, identity.model_dump(mode="json"), mode=0o600)


def device_key(directory: Path) -> "Ed25519PrivateKey":
    """Return the device's private key, made now if there is none.

    Raises:
        ConfigError: the file is there and is not a key.
        StoreError: the disk does not take a new one.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = directory / KEY_FILE
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(path, f"{Ed25519PrivateKey.generate().private_bytes_raw().hex()}\n".encode(), mode=0o600)
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text().strip()))
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"{path} is not a device key: {error}", hint="remove it together with identity.json and enrol again"
        ) from error


def public_key_hex(key: "Ed25519PrivateKey") -> str:
    """Return the raw public key in hexadecimal."""
    return key.public_key().public_bytes_raw().hex()
