"""Who this device is: its keys, made on the device and never sent, and what it was given at enrolment.

Rules:
- The private keys and the credentials are files of mode 0600; the keys are made once and then only read. One signs what
  the device says at enrolment, the other (P-256, which every broker takes) proves it on every TLS connection.
- `identity.json` is written last: with it the device is enrolled, without it it enrols again.
- Reading the identity needs no cryptography library: a running daemon does not sign anything.
"""

import hashlib
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from edge.errors import ConfigError, StoreError
from edge.files import read_checked_json, write_atomic, write_checked_json
from edge.tls import context
from edge.wire.base import Name, WireModel
from edge.wire.http import BrokerAddress

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_FILE = "device.key"
TLS_KEY_FILE = "tls.key"
CERTIFICATE_FILE = "device.crt"
CA_FILE = "ca.pem"
BROKER_CA_FILE = "broker-ca.pem"
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
    claim_digest: str | None = None
    """SHA-256 of the claim that it came by: with another in the configuration the device enrols again."""


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


def ca_file(directory: Path, configured: Path | None) -> Path | None:
    """Return what to verify the control plane by: what is configured, else what enrolment left; None for the system."""
    return configured or _if_there(directory / CA_FILE)


def broker_context(directory: Path, configured: Path | None) -> ssl.SSLContext:
    """Return how the device meets its broker: whom it believes, and the certificate that it shows if it has one.

    Raises:
        ConfigError: a file is damaged.
    """
    own = _if_there(directory / CERTIFICATE_FILE)
    ca = _if_there(directory / BROKER_CA_FILE) or configured
    return context(ca=ca, certificate=None if own is None else (own, directory / TLS_KEY_FILE))


def save_credentials(directory: Path, *, certificate: str | None, ca: str | None, broker_ca: str | None) -> None:
    """Keep what enrolment gave besides the identity; what it did not give any more is removed.

    Raises:
        StoreError: the disk does not take it.
    """
    for name, pem in ((CERTIFICATE_FILE, certificate), (CA_FILE, ca), (BROKER_CA_FILE, broker_ca)):
        if pem is not None:
            write_atomic(directory / name, pem.encode(), mode=0o600)
        else:
            (directory / name).unlink(missing_ok=True)


def certificate_request(directory: Path, device: str) -> str:
    """Return the request (PKCS #10, PEM) for a certificate of the device's TLS key, made now if there is none.

    Raises:
        ConfigError: the key's file is there and is not a key.
        StoreError: the disk does not take a new one.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    path = directory / TLS_KEY_FILE
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = ec.generate_private_key(ec.SECP256R1())
        write_atomic(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(
            f"{path} is not a key: {error}", hint="remove it and identity.json, and enrol again"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} is not a P-256 key", hint="remove it and identity.json, and enrol again")
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, device)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


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


def claim_digest(claim: str) -> str:
    """Return what is kept of a claim."""
    return hashlib.sha256(claim.encode()).hexdigest()


def public_key_hex(key: "Ed25519PrivateKey") -> str:
    """Return the raw public key in hexadecimal."""
    return key.public_key().public_bytes_raw().hex()


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None
