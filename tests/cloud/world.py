"""A control plane in a folder for tests: real store, real parts, and devices that enrol with keys of their own."""

import json
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import func, select

from cloud import keys, tables
from cloud.clock import Clock
from cloud.config import CloudConfig, ServerConfig, StoreConfig, TlsConfig
from cloud.fleet import Fleet
from cloud.ingest import Incoming
from cloud.server import Parts, build
from cloud.services import Services
from edge.wire.http import EnrolAnswer, EnrolRequest, csr_statement, enrol_statement
from edge.wire.messages import Health, Presence, Reported
from edge.wire.topics import topic
from tests.clocks import HeldClock
from tests.cloud.blank import blank_sqlite

INTERVAL_S = 5.0
DIGEST = "ab" * 32
TLS_KEY = ec.generate_private_key(ec.SECP256R1())
"""What all devices of the tests prove themselves by: making one takes longer than all else."""


@dataclass
class RecordingPublisher:
    """Keeps what would go to the broker."""

    sent: list[tuple[str, bytes, bool]] = field(default_factory=list)

    def publish(self, topic_name: str, payload: bytes, *, retain: bool) -> None:
        """Keep a message."""
        self.sent.append((topic_name, payload, retain))


class World:
    """All parts over one folder, with a clock that is held; no broker runs."""

    def __init__(
        self,
        folder: Path,
        *,
        with_keys: bool = False,
        clock: HeldClock | None = None,
        database: str = "",
        **sections: Any,
    ) -> None:
        self.folder = folder
        self.clock = clock or HeldClock()
        sections.setdefault("server", ServerConfig(port=0))
        if database.startswith("postgresql") and "tls" not in sections:
            sections["tls"] = TlsConfig(authority_secret_file=secret_file(folder))
        self.config = CloudConfig(store=StoreConfig(data_dir=folder / "data", url=database), **sections)
        if with_keys:
            made = keys.create(folder / "keys", now=now_of(self.clock))
            self.config.data_dir.mkdir(parents=True, exist_ok=True)
            made.rename(self.config.keys_dir)
        if not database:
            blank_sqlite(self.config.data_dir / "cloud.sqlite")
        self.parts: Parts = build(self.config, self.clock)
        self.services: Services = self.parts.services
        if with_keys:
            assert self.services.registry.open()

    @property
    def release_key(self) -> Path:
        """The key that bundles are signed with."""
        return self.folder / "keys" / "release.pem"

    def close(self) -> None:
        """Let the database go."""
        self.services.store.close()

    def enrol(self, device: str = "box-1", **fields: Any) -> EnrolAnswer:
        """Take a device in with a fresh key and a fresh claim."""
        claim = self.services.enrolment.create_claim().token
        return self.services.enrolment.enrol(enrol_request(Ed25519PrivateKey.generate(), claim, device, **fields))

    def take(self, *messages: Incoming) -> dict[str, int]:
        """Hand messages to ingest as one group; return what is acknowledged per device."""
        return {ack.device: ack.stored_through for ack in self.parts.ingest.store_group(messages)}

    def rows(self, table: Any) -> list[Any]:
        """Return all rows of a table."""
        with self.services.store.read() as connection:
            return list(connection.execute(select(table)))

    def count(self, table: Any) -> int:
        """Return how many rows a table has."""
        with self.services.store.read() as connection:
            return int(connection.execute(select(func.count()).select_from(table)).scalar_one())

    def quarantined(self) -> list[str]:
        """Return the reasons in quarantine."""
        return [row.reason for row in self.rows(tables.quarantine)]

    def fleet_with(self, publisher: RecordingPublisher) -> Fleet:
        """Return the fleet over the same store, publishing where a test can look."""
        return Fleet(self.services.store, self.clock, publisher)


def secret_file(folder: Path) -> Path:
    """Return a file with what all copies of the tests' control planes encrypt their authority's key by."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "authority-secret"
    path.write_text("the same at all copies")
    return path


def now_of(clock: Clock) -> datetime:
    """Return the clock's moment as a date."""
    return datetime.fromtimestamp(clock.now_ms() // 1000, tz=UTC)


def enrol_request(key: Ed25519PrivateKey, claim: str, device: str = "box-1", **fields: Any) -> EnrolRequest:
    """Return what a device with this key would send."""
    public_key = key.public_key().public_bytes_raw().hex()
    proof = key.sign(enrol_statement(device, claim, public_key)).hex()
    plain: dict[str, Any] = {"profile": "inspection-box", "site": "hall-1", "models": ["brightness"], "proof": proof}
    csr = fields.setdefault("csr", certificate_request(device))
    if csr is not None:
        plain["csr_proof"] = key.sign(csr_statement(device, claim, public_key, csr)).hex()
    return EnrolRequest(device=device, claim=claim, public_key=public_key, **{**plain, **fields})


def certificate_request(device: str, key: Any = TLS_KEY) -> str:
    """Return a request for a certificate of this name."""
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, device)])
    signing = None if isinstance(key, Ed25519PrivateKey) else hashes.SHA256()
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .sign(key, signing)
        .public_bytes(Encoding.PEM)
        .decode()
    )


def device_context(answer: EnrolAnswer) -> ssl.SSLContext | None:
    """Return how an enrolled device meets the broker."""
    if not answer.broker.tls:
        return None
    made = ssl.create_default_context(cadata=answer.broker_ca)
    if answer.certificate is not None:
        key = TLS_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        with NamedTemporaryFile("w", suffix=".pem") as file:  # the standard library takes files only
            file.write(key + answer.certificate)
            file.flush()
            made.load_cert_chain(file.name)
    return made


def incoming(device: str, channel: Any, payload: bytes, *, retained: bool = False) -> Incoming:
    """Return a message as the link hands it over."""
    return Incoming(topic(device, channel), payload, retained, lambda: None)


def event(seq: int, **fields: Any) -> dict[str, Any]:
    """Return an event row as a device writes it."""
    return {"kind": "event", "seq": seq, "at_ms": 1000 + seq, "boot_id": "b1", "name": "swapped", **fields}


def decision(seq: int, **fields: Any) -> dict[str, Any]:
    """Return a decision row as a device writes it."""
    source = {"source": "folder", "name": f"{seq}.jpg", "digest": f"{seq:064x}", "media_type": "image/jpeg"}
    return {
        "kind": "decision",
        "seq": seq,
        "station": "glass",
        "at_ms": 1000 + seq,
        "boot_id": "b1",
        "monotonic_ms": seq,
        "mode": "partial",
        "verdict": "pass",
        "action": "pass",
        "input": {**source, "size_bytes": 10, "kept": True},
        **fields,
    }


def up(device: str, rows: list[Any], *, incarnation: str = "i1", **fields: Any) -> Incoming:
    """Return a batch of rows as the link hands it over."""
    document = {"kind": "up", "device": device, "incarnation": incarnation, "rows": rows, **fields}
    return incoming(device, "up", json.dumps(document).encode())


def reported(device: str = "box-1", **fields: Any) -> Reported:
    """Return a device's full state."""
    plain: dict[str, Any] = {
        "incarnation": "i1",
        "boot_id": "b1",
        "sent_at_ms": 1,
        "config_version": 0,
        "software": "0.1.0",
        "profile": "inspection-box",
        "site": "hall-1",
        "health": Health(uptime_s=1, memory_bytes=1, disk_free_bytes=1, outbox_rows=0, outbox_bytes=0),
        "interval_s": INTERVAL_S,
    }
    return Reported(device=device, **{**plain, **fields})


def presence(device: str, boot_id: str, *, online: bool) -> Incoming:
    """Return a birth message or a last will as the link hands it over."""
    document = Presence(device=device, boot_id=boot_id, online=online, at_ms=1)
    return incoming(device, "presence", document.model_dump_json().encode())
