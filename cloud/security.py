"""What the control plane shows and believes on encrypted connections: one place for every TLS context of the cloud.

Rules:
- Without a setting, the server's certificate is made here, by our own authority, and renewed long before it ends; with
  `tls.certificate_file` it is the operator's, and read again when the files change.
- What devices verify us by (`trust_pem`) is named in every claim by its SHA-256, so that nobody in between can answer
  for us even at the first call.
- A context lives as long as the process; renewing changes what it shows to the next caller.
- While an authority is replaced, servers show a certificate of the one that every device knows; what brokers believe
  are both (`cloud.authorities`).
"""

import ipaddress
import logging
import socket
import ssl
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cloud.authorities import Authorities
from cloud.authority import (
    EXTERNAL_SERVER_LIFE,
    Authority,
    Issued,
    cloud_identity,
    fingerprint,
    first_certificate_der,
    utc,
)
from cloud.blobs import write_durably
from cloud.clock import Clock
from cloud.config import CloudConfig
from cloud.errors import ConfigError
from cloud.store import CloudStore

log = logging.getLogger(__name__)

RENEW_BEFORE = timedelta(days=30)
"""A third of its life: a control plane that stands still over the holidays comes back with one that is good."""
SERVER_FILE, CLOUD_FILE, NEXT_CLOUD_FILE = "server.pem", "cloud.pem", "cloud-next.pem"


class Security:
    """The certificates of one control plane. Belongs to its process; `renew` may be called from any thread."""

    def __init__(self, config: CloudConfig, clock: Clock, store: CloudStore) -> None:
        """Open the authorities, and make what is missing.

        Raises:
            ConfigError: a certificate cannot be used, and which.
        """
        self._config = config
        self._clock = clock
        self._folder = config.data_dir / "tls"
        self.authorities = Authorities(store, clock, self._folder, config.authority_secret())
        self.names = server_names(config)
        self._shown: ssl.SSLContext | None = None
        self._seen: tuple[object, ...] = ()
        self.renew()

    @property
    def certificate_file(self) -> Path:
        """The server's certificate."""
        return self._config.tls.certificate_file or self._folder / SERVER_FILE

    @property
    def key_file(self) -> Path:
        """Its key."""
        return self._config.tls.key_file or self._folder / SERVER_FILE

    @property
    def authority(self) -> Authority:
        """The one that our servers' certificates are of, which every device knows."""
        return self.authorities.shown

    @property
    def trust_pem(self) -> str | None:
        """What a new device verifies our servers by, one certificate; None for what its system trusts."""
        if self._config.tls.certificate_file is None:
            return self.authority.pem
        return self.trust_to_come_pem

    @property
    def trust_to_come_pem(self) -> str | None:
        """The same with the authority whose certificates our servers will show."""
        if self._config.tls.certificate_file is None:
            return self.authorities.pem
        return _read(self._config.tls.ca_file, "tls.ca_file") if self._config.tls.ca_file else None

    @property
    def broker_trust_pem(self) -> str | None:
        """What devices verify the broker by."""
        own_file = self._config.broker.ca_file
        if self._config.broker.kind == "embedded":
            return self.trust_to_come_pem
        return self.authorities.pem if own_file is None else _read(own_file, "broker.ca_file")

    def fingerprint(self) -> str | None:
        """Return the SHA-256 of `trust_pem` as a claim carries it (base64url without padding), or None."""
        trusted = self.trust_pem
        return None if trusted is None else fingerprint(trusted)

    def server_context(self) -> ssl.SSLContext:
        """Return the context of our HTTPS servers."""
        if self._shown is None:
            self._shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._load(self._shown)
        return self._shown

    def broker_context(self, client: Path | None = None) -> ssl.SSLContext:
        """Return the context by which the control plane connects to its broker, with another certificate if it is said.

        The embedded one listens here and shows the very certificate that we gave it, which is compared, not its name.
        """
        config = self._config.broker
        if config.kind == "embedded":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.load_verify_locations(cadata=_certificate(self.certificate_file))
        else:
            context = ssl.create_default_context(cafile=config.ca_file)
            context.load_verify_locations(cadata=self.authorities.pem)
        if config.uses_certificates:
            context.load_cert_chain(client or self.cloud_file())
        return context

    def sign_device(self, request_pem: str, device: str) -> Issued:
        """Return a certificate for a device's own key, signed by the authority in use.

        Raises:
            InvalidError: the request is not one, asks for another name, or shows a key of a kind that is not taken.
        """
        return self.authorities.signing.sign_device(request_pem, device, utc(self._clock.now_ms()))

    def cloud_file(self) -> Path:
        """Return the file with key and certificate by which the control plane signs in at a broker."""
        return self._client_file(CLOUD_FILE, self.authorities.signing)

    def next_cloud_file(self) -> Path | None:
        """Return the same of the authority that waits to be used, if one does: to see whether the broker takes it."""
        waiting = self.authorities.waiting
        return None if waiting is None else self._client_file(NEXT_CLOUD_FILE, waiting)

    def cloud_user(self) -> str:
        """Return how the embedded broker's accounts name the control plane."""
        return cloud_identity(self._config.broker.username)

    def renew(self) -> bool:
        """Make a new server certificate if it is time, or take the operator's new one; return whether it changed.

        Raises:
            ConfigError: the operator's files cannot be used.
        """
        if self._config.tls.certificate_file is None:
            path = self._folder / SERVER_FILE
            if not self._is_good(path, set(self.names), self.authority):
                made = self.authority.make_server(self.names, utc(self._clock.now_ms()))
                write_durably(path, made, mode=0o600)
        seen = _state(self.certificate_file, self.key_file)
        if seen == self._seen:
            return False
        self._load(self._shown or ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))  # also the proof that it is good
        first, self._seen = not self._seen, seen
        return not first

    def broker_pem(self, names: list[str], kept: Path) -> bytes:
        """Return key and certificate for a broker that somebody else runs; those that it has while they are good."""
        wanted = [name for name in names if name not in WILDCARDS] or list(self.names)
        if self._is_good(kept, set(wanted), self.authority):
            return kept.read_bytes()
        return self.authority.make_server(wanted, utc(self._clock.now_ms()), EXTERNAL_SERVER_LIFE)

    def revocation_list(self, serials: list[str]) -> str:
        """Return the lists of certificates that were put out, one of each authority that is trusted (PEM)."""
        now = utc(self._clock.now_ms())
        return "".join(one.authority.revocation_list(serials, now) for one in self.authorities.trusted)

    def _client_file(self, name: str, authority: Authority) -> Path:
        path = self._folder / name
        if not self._is_good(path, {self.cloud_user()}, authority):
            made = authority.make_client(self._config.broker.username, utc(self._clock.now_ms()))
            write_durably(path, made, mode=0o600)
        return path

    def _is_good(self, path: Path, names: set[str], authority: Authority) -> bool:
        until = utc(self._clock.now_ms()) + RENEW_BEFORE
        return path.exists() and authority.is_good(path.read_bytes(), names, until)

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self.certificate_file, self.key_file)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError(
                f"tls.certificate_file: {self.certificate_file} and its key cannot be used: {error}",
                hint="both in PEM, the certificate first and its chain after it, the key without a password",
            ) from error


def server_names(config: CloudConfig) -> list[str]:
    """Return the names and addresses by which devices may reach us, as far as they can be known, in a fixed order."""
    told = [config.server.host, config.server.device_host, config.broker.host, config.broker.public_host]
    told += [urlsplit(config.server.public_url).hostname or "", *config.tls.names]
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname()]
    for host in told:
        names += _own_addresses() if host in WILDCARDS else [host]
    return list(dict.fromkeys(name for name in names if _is_name(name)))


WILDCARDS = ("0.0.0.0", "::")  # noqa: S104  (what stands for every address, not one to listen on)


def _own_addresses() -> list[str]:
    """Return the address by which this machine goes out; nothing is sent to find it."""
    found = []
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((far, 9))
                found.append(str(probe.getsockname()[0]))
        except OSError:
            continue
    return found


def _is_name(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return bool(name) and name.isascii() and not name.startswith((".", "-")) and len(name) <= 253
    return True


def _certificate(path: Path) -> bytes:
    try:
        return first_certificate_der(path.read_text("ascii"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"tls.certificate_file: {path} holds no certificate: {error}") from error


def _state(*paths: Path) -> tuple[object, ...]:
    def of(path: Path) -> tuple[int, int, int]:
        found = path.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size

    try:
        return tuple(of(path) for path in paths)
    except OSError as error:
        raise ConfigError(f"tls: cannot read {error.filename}: {error.strerror}") from error


def _read(path: Path, key: str) -> str:
    try:
        pem = path.read_text("ascii")
        first_certificate_der(pem)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {path} holds no certificate: {error}") from error
    return pem
