"""The control plane's own certificate authority: made at its first start, it says who is a device and who is the cloud.

Rules:
- Devices are given the certificate, never the key, and know it by its SHA-256. Where it is kept, which one signs, and
  how one takes the place of another stands in `cloud.authorities`.
- It signs what was asked with the key that was shown, and writes the name itself: a device gets one for itself alone.
- A device's certificate names it twice: `CN` for brokers that take a user's name from there, and a URI with the serial
  number, which the embedded broker's accounts hold, so that an older certificate of the same name is of no use.
- Devices' certificates last as long as the authority (as IEEE 802.1AR has it for a device's identity): a device may lie
  in a store for a year and wake with a wrong clock. They end by being put out, not by time.
- Extensions as RFC 5280 asks for them, so that strict verifiers take them too.
"""

import base64
import hashlib
import ipaddress
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.blobs import write_durably
from cloud.errors import ConfigError, InvalidError

CA_FILE, CA_KEY_FILE = "ca.pem", "ca.key"
CA_LIFE = timedelta(days=20 * 365)
SERVER_LIFE = timedelta(days=90)
EXTERNAL_SERVER_LIFE = timedelta(days=397)
"""For a broker that somebody else runs: longer than browsers would take it, so that a yearly round is enough."""
BACKDATED = timedelta(days=1)
"""Devices whose clock is behind by less take a new certificate at once."""
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True)
class Issued:
    """A device's certificate."""

    serial: str
    """Hexadecimal."""
    pem: str
    authority: str = ""
    """Fingerprint of the authority that signed it."""


class Authority:
    """A certificate that signs others, with its key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.pem = certificate.public_bytes(Encoding.PEM).decode()
        self.fingerprint = fingerprint(self.pem)
        """SHA-256 of the certificate, as claims carry it."""
        self.ends_at_ms = int(certificate.not_valid_after_utc.timestamp() * 1000)
        self._certificate = certificate
        self._key = key

    @classmethod
    def make(cls, now: datetime) -> "Authority":
        """Return a new one, which is kept nowhere yet."""
        return cls(*_made(now))

    @classmethod
    def load(cls, pem: str, key_pem: bytes, password: str | None = None) -> "Authority":
        """Return the authority of a certificate and its key.

        Raises:
            ValueError: the key is none, is not the certificate's, or the password is wrong.
        """
        certificate = x509.load_pem_x509_certificate(pem.encode())
        try:
            key = load_pem_private_key(key_pem, None if password is None else password.encode())
        except TypeError as error:
            raise ValueError(str(error)) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("the key is not the certificate's")
        return cls(certificate, key)

    @classmethod
    def open(cls, folder: Path, now: datetime) -> "Authority":
        """Return the authority that is kept in a folder, made now if there is none.

        Raises:
            ConfigError: it is there and cannot be used, or the disk does not take a new one.
        """
        try:
            if not (folder / CA_FILE).exists():
                cls.make(now).keep(folder)
            pem, key = (folder / CA_FILE).read_text("ascii"), (folder / CA_KEY_FILE).read_bytes()
            return cls.load(pem, key)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the certificate authority in {folder} cannot be used: {error}",
                hint="bring ca.pem and ca.key back from a backup; without them every device has to enrol again",
            ) from error

    def keep(self, folder: Path, key_file: str = CA_KEY_FILE) -> None:
        """Write it into a folder, the key first: with the certificate the authority is there.

        Raises:
            OSError: the disk does not take it.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(folder / key_file, self.key_pem(), mode=0o600)
        if key_file == CA_KEY_FILE:
            write_durably(folder / CA_FILE, self.pem.encode())

    def key_pem(self, password: str | None = None) -> bytes:
        """Return its key (PKCS #8, PEM), encrypted by a password if there is one."""
        hidden = NoEncryption() if password is None else BestAvailableEncryption(password.encode())
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden)

    def sign_device(self, request_pem: str, device: str, now: datetime) -> Issued:
        """Return a certificate for a device's own key.

        Raises:
            InvalidError: the request is not one, asks for another name, or shows a key of a kind that is not taken.
        """
        request = _checked(request_pem, device)
        serial = x509.random_serial_number()
        names = [x509.UniformResourceIdentifier(device_identity(device, f"{serial:x}"))]
        certificate = self._sign(request, device, names, ExtendedKeyUsageOID.CLIENT_AUTH, now, CA_LIFE, serial=serial)
        return Issued(f"{serial:x}", certificate, self.fingerprint)

    def make_client(self, name: str, now: datetime) -> bytes:
        """Return key and certificate by which the control plane itself signs in at a broker."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.UniformResourceIdentifier(cloud_identity(name))]
        certificate = self._sign(key.public_key(), name, names, ExtendedKeyUsageOID.CLIENT_AUTH, now, CA_LIFE)
        return _key_pem(key) + certificate.encode()

    def make_server(self, names: Sequence[str], now: datetime, life: timedelta = SERVER_LIFE) -> bytes:
        """Return key and certificate for a server that is reached by these names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        purpose = ExtendedKeyUsageOID.SERVER_AUTH
        certificate = self._sign(key.public_key(), "lineside-cloud", _hosts(names), purpose, now, life)
        return _key_pem(key) + certificate.encode()

    def is_good(self, pem: bytes, names: set[str], until: datetime) -> bool:
        """Return whether a certificate is one of ours, is for all these names (or URIs), and lasts until then."""
        begin = pem.find(ssl.PEM_HEADER.encode())
        try:
            certificate = x509.load_pem_x509_certificate(pem[begin:] if begin >= 0 else pem)
            certificate.verify_directly_issued_by(self._certificate)
            has = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        texts = {*has.get_values_for_type(x509.DNSName), *has.get_values_for_type(x509.UniformResourceIdentifier)}
        addresses = {str(address) for address in has.get_values_for_type(x509.IPAddress)}
        return names <= texts | addresses and certificate.not_valid_after_utc > until

    def revocation_list(self, serials: Iterable[str], now: datetime) -> str:
        """Return the list of certificates that were put out, for brokers that ask for one.

        It lasts as long as the authority: it is brought to the broker, which refuses everybody by one that has run out.
        """
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=self._certificate.subject,
            last_update=now - BACKDATED,
            next_update=self._certificate.not_valid_after_utc,
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(now - BACKDATED)
            builder = builder.add_revoked_certificate(entry.build())
        builder = builder.add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
        builder = builder.add_extension(_authority_key(self._certificate), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def _sign(
        self,
        public_key: PublicKey,
        name: str,
        names: Sequence[x509.GeneralName],
        purpose: x509.ObjectIdentifier,
        now: datetime,
        life: timedelta,
        *,
        serial: int | None = None,
    ) -> str:
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=False, crl_sign=False, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._certificate.subject)
            .public_key(public_key)
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(min(now + life, self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(_authority_key(self._certificate), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM).decode()


def device_identity(device: str, serial: str) -> str:
    """Return the URI by which the embedded broker knows one certificate of a device."""
    return f"lineside:device:{device}:{serial}"


def cloud_identity(name: str) -> str:
    """Return the URI by which the embedded broker knows the control plane."""
    return f"lineside:cloud:{name}"


def fingerprint(pem: str) -> str:
    """Return the SHA-256 of the first certificate, base64url without padding."""
    digest = hashlib.sha256(first_certificate_der(pem)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def first_certificate_der(pem: str) -> bytes:
    """Return the first certificate of a PEM text as it is on the wire.

    Raises:
        ValueError: there is none.
    """
    begin = pem.find(ssl.PEM_HEADER)
    end = pem.find(ssl.PEM_FOOTER, begin)
    if begin < 0 or end < 0:
        raise ValueError("expected a certificate in PEM, got none")
    return ssl.PEM_cert_to_DER_cert(pem[begin : end + len(ssl.PEM_FOOTER)])


def _made(now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Lineside control plane")])
    usage = x509.KeyUsage(
        digital_signature=False, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _checked(request_pem: str, device: str) -> PublicKey:
    try:
        request = x509.load_pem_x509_csr(request_pem.encode())
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise InvalidError(f"csr: expected a certificate request (PKCS #10, PEM), got none: {error}") from error
    if not signed:
        raise InvalidError("csr: its signature does not fit its key")
    asked = [attribute.value for attribute in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if asked != [device]:
        raise InvalidError(f"csr: a device gets a certificate for itself alone: expected CN {device!r}, got {asked}")
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise InvalidError("csr: expected a key of the kind P-256 or Ed25519")


def _hosts(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _authority_key(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def utc(now_ms: int) -> datetime:
    """Return a moment as certificates hold it: whole seconds, UTC."""
    return datetime.fromtimestamp(now_ms // 1000, tz=UTC)
