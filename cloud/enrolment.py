"""Takes devices into the fleet by a one-time token, and puts them out of it.

Rules:
- A claim is bound to the first key that shows it: the same key may ask again and gets fresh credentials
  (power was cut before it kept the first answer); another key is refused.
- A name that is enrolled stays with its key until somebody revokes it, whatever token is shown.
- Secrets are made here, shown once, and kept as hashes only.
- A device that enrols anew or is put out loses what it had at once: token, password, certificate, and the claim that it
  came with. Only then does its key get in by a claim that was used before.
- With certificates (`broker.credential`) a device gets one for the key in its request, and no password.
"""

import base64
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import bcrypt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, select

from cloud import audit, tables
from cloud.authority import Issued, first_certificate_der
from cloud.clock import Clock
from cloud.config import BrokerConfig
from cloud.errors import InvalidError, NotFoundError, RefusedError
from cloud.fleet import Fleet
from cloud.registry import Registry, with_default
from cloud.security import Security
from cloud.store import CloudStore, upsert
from edge.wire.base import BundleRef
from edge.wire.http import (
    BrokerAddress,
    EnrolAnswer,
    EnrolRequest,
    Renewal,
    RenewRequest,
    Trust,
    claim_parts,
    csr_statement,
    enrol_statement,
    renew_statement,
)
from edge.wire.messages import Desired
from edge.wire.topics import topic

SECRET_BYTES = 32
BCRYPT_COST = 4
"""The lowest: the password is 256 random bits, and the broker checks all of them again at every reload."""
PBKDF2_ROUNDS = 101
"""What Mosquitto's own tool writes."""
DEFAULT_CLAIM_S = 24 * 3600
LONGEST_CLAIM_S = 366 * 24 * 3600
CLOUD_USER = "lineside-cloud"
"""The control plane's own name at the embedded broker."""


class BrokerAccounts(Protocol):
    """The broker, as far as devices' accounts go."""

    def endpoint(self, reached_at: str = "") -> tuple[str, int, bool]:
        """Return host, port and whether TLS is spoken, as a device reaches it that reached us by HTTP at this host."""
        ...

    def accounts_changed(self, put_out: str | None = None) -> None:
        """Read the devices' accounts anew, and cut the connection of one that was put out; from any thread."""
        ...


@dataclass(frozen=True)
class Account:
    """A device as brokers know it."""

    device: str
    bcrypt: str = ""
    """Of its password, as nats-server takes it; empty without one."""
    pbkdf2: str = ""
    """The same as Mosquitto takes it."""
    serial: str = ""
    """Of its certificate, hexadecimal; empty without one."""
    certificate: str = ""
    """PEM."""


@dataclass(frozen=True)
class Claim:
    """A one-time permission to enrol."""

    token: str
    """Shown once; only a digest of what stands before the dot is kept. After it: whom the device shall believe."""
    profile: str | None
    site: str | None
    device: str | None
    expires_at_ms: int


class Enrolment:
    """Makes claims, enrols and revokes devices, and knows them by their tokens."""

    def __init__(
        self,
        store: CloudStore,
        clock: Clock,
        fleet: Fleet,
        registry: Registry,
        accounts: BrokerAccounts,
        security: Security,
        broker: BrokerConfig,
    ) -> None:
        self._store = store
        self._clock = clock
        self._fleet = fleet
        self._registry = registry
        self._accounts = accounts
        self._security = security
        self._certificates = broker.uses_certificates
        self._reserved = {broker.username, CLOUD_USER}

    def create_claim(
        self,
        *,
        profile: str | None = None,
        site: str | None = None,
        device: str | None = None,
        ttl_s: float = DEFAULT_CLAIM_S,
        who: str = "operator",
    ) -> Claim:
        """Make a claim; what is None may be anything.

        Raises:
            InvalidError: the device's name is not a valid one, or the time is not positive.
        """
        if device is not None:
            self._check_name(device)
        if not 0 < ttl_s <= LONGEST_CLAIM_S:
            raise InvalidError(f"ttl: expected more than 0 s and at most a year, got {ttl_s}")
        now_ms = self._clock.now_ms()
        trusted = self._security.fingerprint()
        secret = secrets.token_urlsafe(SECRET_BYTES)
        claim = Claim(f"{secret}.{trusted}" if trusted else secret, profile, site, device, now_ms + round(ttl_s * 1000))
        kept = {"profile": profile, "site": site, "device": device, "expires_at_ms": claim.expires_at_ms}
        with self._store.write() as connection:
            row = {"token_digest": _digest(secret), "created_at_ms": now_ms, **kept}
            connection.execute(tables.claims.insert().values(row))
            audit.record(connection, at_ms=now_ms, who=who, what="claim_created", data=kept)
        return claim

    def enrol(self, request: EnrolRequest, reached_at: str = "") -> EnrolAnswer:
        """Take a device in, or give one that asks again fresh credentials.

        Args:
            request: what it says.
            reached_at: the host by which it has reached us.

        Raises:
            RefusedError: proof, claim, key, profile or site are not right, and which.
            InvalidError: its request for a certificate is not one.
        """
        _check_proof(request)
        self._check_name(request.device)
        now_ms = self._clock.now_ms()
        issued = self._certificate(request)
        password = "" if issued else secrets.token_urlsafe(SECRET_BYTES)
        token = secrets.token_urlsafe(SECRET_BYTES)
        hashes = {"token_digest": _digest(token), **_password_hashes(password)}
        defaults = [ref for ref in map(self._registry.default, request.models) if ref is not None]
        with self._store.write() as connection:
            self._use_claim(connection, request, now_ms)
            known = _free_name(connection, request)
            _keep_device(connection, request, known, hashes, now_ms)
            _replace_certificate(connection, request.device, issued, now_ms)
            data = {"device": request.device, "profile": request.profile, "site": request.site, "again": bool(known)}
            audit.record(connection, at_ms=now_ms, who=f"device {request.device}", what="device_enrolled", data=data)
            desired = self._fleet.change_desired(connection, request.device, _with_defaults(defaults))
        self._accounts.accounts_changed(put_out=request.device if known else None)
        self._fleet.publish([desired])
        host, port, tls = self._accounts.endpoint(reached_at)
        user = "" if issued else request.device
        return EnrolAnswer(
            device=request.device,
            broker=BrokerAddress(host=host, port=port, username=user, password=password, tls=tls),
            token=token,
            server_time_ms=now_ms,
            certificate=issued and issued.pem,
            ca=self._security.trust_pem,
            broker_ca=self._security.broker_trust_pem,
        )

    def device_of(self, token: str) -> str | None:
        """Return the device that owns a bearer token, or None."""
        devices = tables.devices.c
        query = select(devices.device).where(devices.token_digest == _digest(token), devices.revoked_at_ms.is_(None))
        with self._store.read() as connection:
            return connection.execute(query).scalar()

    def trust_of(self, device: str) -> Trust:
        """Return whom a device of the fleet shall believe, and whether its certificate is to be renewed."""
        known, row = self._security.authorities, _certificate_of(self._store, device)
        newest = known.newest.fingerprint
        if row is not None and row.trusts != newest:
            own = tables.devices.c.device == device
            with self._store.write() as connection:
                connection.execute(tables.devices.update().where(own).values(trusts=newest))
        pem = None if row is None else row.pem
        return Trust(
            ca=self._security.trust_to_come_pem,
            broker_ca=self._security.broker_trust_pem,
            certificate=pem and hashlib.sha256(first_certificate_der(pem)).hexdigest(),
            renew=pem is not None and row.authority != known.signing.fingerprint,
        )

    def renew(self, device: str, request: RenewRequest) -> Renewal:
        """Give a device of the fleet another certificate; the one before is of no use from now on.

        Raises:
            RefusedError: it did not prove that the request is its own, or no certificates are given out here.
            InvalidError: its request for a certificate is not one.
        """
        if not self._certificates:
            raise RefusedError("devices do not sign in by certificate here")
        issued, now_ms = self._security.sign_device(request.csr, device), self._clock.now_ms()
        devices = tables.devices.c
        with self._store.write() as connection:
            mine = (devices.device == device) & devices.revoked_at_ms.is_(None)
            key = connection.execute(select(devices.public_key).where(mine)).scalar() or ""
            _check_signature(key, [(request.proof, renew_statement(device, request.csr))], "`renew_statement`")
            _replace_certificate(connection, device, issued, now_ms)
            data = {"device": device, "authority": issued.authority}
            audit.record(connection, at_ms=now_ms, who=f"device {device}", what="certificate_renewed", data=data)
        self._accounts.accounts_changed()
        return Renewal(certificate=issued.pem)

    def revoke(self, device: str, *, who: str, why: str = "") -> None:
        """Put a device out of the fleet: credentials and claim are of no use from now on, its connection is cut.

        Raises:
            NotFoundError: there is none of this name, or it is out already.
        """
        devices, now_ms = tables.devices, self._clock.now_ms()
        with self._store.write() as connection:
            revoked = devices.update().where(devices.c.device == device, devices.c.revoked_at_ms.is_(None))
            if connection.execute(revoked.values(revoked_at_ms=now_ms)).rowcount == 0:
                raise NotFoundError(f"no device of the fleet is called {device!r}")
            _replace_certificate(connection, device, None, now_ms)
            key = select(devices.c.public_key).where(devices.c.device == device).scalar_subquery()
            used = tables.claims.update().where(tables.claims.c.used_by_key == key)
            connection.execute(used.values(void_at_ms=now_ms))
            audit.record(
                connection,
                at_ms=now_ms,
                who=who,
                what="device_revoked",
                why=why,
                data={"device": device},
                before={"revoked": False},
                after={"revoked": True},
            )
        self._accounts.accounts_changed(put_out=device)

    def _check_name(self, device: str) -> None:
        if device in self._reserved:
            raise InvalidError(f"device: {device!r} is how brokers know the control plane", hint="choose another name")
        try:
            topic(device, "up")
        except ValueError as error:
            raise InvalidError(str(error)) from error

    def _certificate(self, request: EnrolRequest) -> Issued | None:
        if not self._certificates:
            return None
        if request.csr is None:
            raise RefusedError(
                "devices sign in by certificate here, and this one asks for none",
                hint='update its software, or set broker.credential = "password"',
            )
        return self._security.sign_device(request.csr, request.device)

    def _use_claim(self, connection: Connection, request: EnrolRequest, now_ms: int) -> None:
        claims = tables.claims
        mine = claims.c.token_digest == _digest(claim_parts(request.claim)[0])
        claim = connection.execute(select(claims).where(mine)).one_or_none()
        if claim is None:
            raise RefusedError("this claim is unknown", hint="make a new one: `lineside-cloud devices claim`")
        if claim.void_at_ms is not None:
            raise RefusedError(
                "this claim's device was put out of the fleet", hint="make a new one: `lineside-cloud devices claim`"
            )
        if claim.used_by_key is None:
            if claim.expires_at_ms < now_ms:
                raise RefusedError("this claim has expired", hint="make a new one: `lineside-cloud devices claim`")
            connection.execute(claims.update().where(mine).values(used_by_key=request.public_key, used_at_ms=now_ms))
        elif claim.used_by_key != request.public_key:
            raise RefusedError(
                "this claim was used by a device with another key",
                hint="a claim is for one device; make a new one: `lineside-cloud devices claim`",
            )
        for field in ("device", "profile", "site"):
            expected, got = getattr(claim, field), getattr(request, field)
            if expected is not None and expected != got:
                raise RefusedError(f"this claim is for {field} {expected!r}, the device says {got!r}")


def accounts(store: CloudStore) -> list[Account]:
    """Return every device in the fleet that can sign in at a broker, by name."""
    devices, certificates = tables.devices, tables.certificates
    good = (certificates.c.device == devices.c.device) & certificates.c.revoked_at_ms.is_(None)
    query = (
        select(devices, certificates.c.serial, certificates.c.pem)
        .select_from(devices.outerjoin(certificates, good))
        .where(devices.c.revoked_at_ms.is_(None))
        .order_by(devices.c.device)
    )
    with store.read() as connection:
        return [
            Account(
                row.device,
                row.broker_password_hash,
                row.mosquitto_password_hash or "",
                row.serial or "",
                row.pem or "",
            )
            for row in connection.execute(query)
        ]


def revoked_serials(store: CloudStore) -> list[str]:
    """Return the certificates that were put out, oldest first."""
    column = tables.certificates.c
    query = select(column.serial).where(column.revoked_at_ms.is_not(None)).order_by(column.issued_at_ms, column.serial)
    with store.read() as connection:
        return list(connection.execute(query).scalars())


def mosquitto_hash(password: str) -> str:
    """Return a line's second half of Mosquitto's password file: PBKDF2 with SHA-512."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, PBKDF2_ROUNDS)
    return f"$7${PBKDF2_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _password_hashes(password: str) -> dict[str, str]:
    if not password:
        return {"broker_password_hash": "", "mosquitto_password_hash": ""}
    return {
        "broker_password_hash": bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_COST)).decode(),
        "mosquitto_password_hash": mosquitto_hash(password),
    }


def _keep_device(
    connection: Connection, request: EnrolRequest, known: Any, hashes: dict[str, str], now_ms: int
) -> None:
    row = {
        "device": request.device,
        "profile": request.profile,
        "site": request.site,
        "tags": known.tags if known else [],
        "models": list(request.models),
        "public_key": request.public_key,
        "enrolled_at_ms": now_ms,
        "revoked_at_ms": None,
        **hashes,
    }
    upsert(connection, tables.devices, row)


def _replace_certificate(connection: Connection, device: str, issued: Issued | None, now_ms: int) -> None:
    certificates = tables.certificates
    before = certificates.update().where(certificates.c.device == device, certificates.c.revoked_at_ms.is_(None))
    connection.execute(before.values(revoked_at_ms=now_ms))
    if issued is not None:
        row = {"serial": issued.serial, "device": device, "pem": issued.pem, "issued_at_ms": now_ms}
        row["authority"] = issued.authority
        connection.execute(certificates.insert().values(row))


def _with_defaults(refs: list[BundleRef]) -> Callable[[Desired], Desired]:
    def change(desired: Desired) -> Desired:
        for ref in refs:
            desired = with_default(desired, ref)
        return desired

    return change


def _check_proof(request: EnrolRequest) -> None:
    said = (request.device, request.claim, request.public_key)
    signed = [(request.proof, enrol_statement(*said))]
    if request.csr is not None:
        signed.append((request.csr_proof or "", csr_statement(*said, request.csr)))
    _check_signature(request.public_key, signed, "`enrol_statement` and `csr_statement`")


def _check_signature(public_key: str, signed: list[tuple[str, bytes]], what: str) -> None:
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        for proof, statement in signed:
            key.verify(bytes.fromhex(proof), statement)
    except (InvalidSignature, ValueError) as error:
        raise RefusedError("the proof does not fit the public key", hint=f"sign {what} with its key") from error


def _certificate_of(store: CloudStore, device: str) -> Any:
    """Return what a device was told to trust, with its certificate if it has one; None if it is out."""
    d, c = tables.devices, tables.certificates
    good = (c.c.device == d.c.device) & c.c.revoked_at_ms.is_(None)
    query = select(d.c.trusts, c.c.pem, c.c.authority).select_from(d.outerjoin(c, good))
    with store.read() as connection:
        return connection.execute(query.where(d.c.device == device, d.c.revoked_at_ms.is_(None))).one_or_none()


def _free_name(connection: Connection, request: EnrolRequest) -> Any:
    devices = tables.devices
    known = connection.execute(select(devices).where(devices.c.device == request.device)).one_or_none()
    if known is not None and known.revoked_at_ms is None and known.public_key != request.public_key:
        raise RefusedError(
            f"a device called {request.device!r} is in the fleet with another key",
            hint="choose another name, or `lineside-cloud devices revoke` the old one first",
        )
    return known


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
