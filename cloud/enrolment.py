"""Takes devices into the fleet by a one-time token, and puts them out of it.

Rules:
- A claim is bound to the first key that shows it: the same key may ask again and gets fresh credentials
  (power was cut before it kept the first answer); another key is refused.
- A name that is enrolled stays with its key until somebody revokes it, whatever token is shown.
- Secrets are made here, shown once, and kept as hashes only.
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
from cloud.clock import Clock
from cloud.errors import InvalidError, NotFoundError, RefusedError
from cloud.fleet import Fleet
from cloud.registry import Registry, with_default
from cloud.store import CloudStore, upsert
from edge.wire.base import BundleRef
from edge.wire.http import BrokerAddress, EnrolAnswer, EnrolRequest, enrol_statement
from edge.wire.messages import Desired
from edge.wire.topics import topic

SECRET_BYTES = 32
BCRYPT_COST = 4
"""The lowest: the password is 256 random bits, and the broker checks all of them again at every reload."""
PBKDF2_ROUNDS = 101
"""What Mosquitto's own tool writes."""
DEFAULT_CLAIM_S = 24 * 3600
LONGEST_CLAIM_S = 366 * 24 * 3600


class BrokerAccounts(Protocol):
    """The broker, as far as devices' accounts go."""

    def endpoint(self) -> tuple[str, int, bool]:
        """Return host, port and whether TLS is spoken, as devices reach it."""
        ...

    def accounts_changed(self) -> None:
        """Read the devices' accounts anew; may be called from any thread."""
        ...


@dataclass(frozen=True)
class Claim:
    """A one-time permission to enrol."""

    token: str
    """Shown once; only its digest is kept."""
    profile: str | None
    site: str | None
    device: str | None
    expires_at_ms: int


class Enrolment:
    """Makes claims, enrols and revokes devices, and knows them by their tokens."""

    def __init__(
        self, store: CloudStore, clock: Clock, fleet: Fleet, registry: Registry, accounts: BrokerAccounts
    ) -> None:
        self._store = store
        self._clock = clock
        self._fleet = fleet
        self._registry = registry
        self._accounts = accounts

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
            _check_name(device)
        if not 0 < ttl_s <= LONGEST_CLAIM_S:
            raise InvalidError(f"ttl: expected more than 0 s and at most a year, got {ttl_s}")
        now_ms = self._clock.now_ms()
        claim = Claim(secrets.token_urlsafe(SECRET_BYTES), profile, site, device, now_ms + round(ttl_s * 1000))
        kept = {"profile": profile, "site": site, "device": device, "expires_at_ms": claim.expires_at_ms}
        with self._store.write() as connection:
            row = {"token_digest": _digest(claim.token), "created_at_ms": now_ms, **kept}
            connection.execute(tables.claims.insert().values(row))
            audit.record(connection, at_ms=now_ms, who=who, what="claim_created", data=kept)
        return claim

    def enrol(self, request: EnrolRequest) -> EnrolAnswer:
        """Take a device in, or give one that asks again fresh credentials.

        Raises:
            RefusedError: proof, claim, key, profile or site are not right, and which.
        """
        _check_proof(request)
        password, token = secrets.token_urlsafe(SECRET_BYTES), secrets.token_urlsafe(SECRET_BYTES)
        hashes = {
            "token_digest": _digest(token),
            "broker_password_hash": bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_COST)).decode(),
            "mosquitto_password_hash": mosquitto_hash(password),
        }
        defaults = [ref for ref in map(self._registry.default, request.models) if ref is not None]
        now_ms = self._clock.now_ms()
        with self._store.write() as connection:
            self._use_claim(connection, request, now_ms)
            known = _free_name(connection, request)
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
            data = {"device": request.device, "profile": request.profile, "site": request.site, "again": bool(known)}
            audit.record(connection, at_ms=now_ms, who=f"device {request.device}", what="device_enrolled", data=data)
            desired = self._fleet.change_desired(connection, request.device, _with_defaults(defaults))
        self._accounts.accounts_changed()
        self._fleet.publish([desired])
        host, port, tls = self._accounts.endpoint()
        broker = BrokerAddress(host=host, port=port, username=request.device, password=password, tls=tls)
        return EnrolAnswer(device=request.device, broker=broker, token=token, server_time_ms=now_ms)

    def device_of(self, token: str) -> str | None:
        """Return the device that owns a bearer token, or None."""
        devices = tables.devices.c
        query = select(devices.device).where(devices.token_digest == _digest(token), devices.revoked_at_ms.is_(None))
        with self._store.read() as connection:
            return connection.execute(query).scalar()

    def revoke(self, device: str, *, who: str, why: str = "") -> None:
        """Put a device out of the fleet: its password and token are of no use from now on.

        Raises:
            NotFoundError: there is none of this name, or it is out already.
        """
        devices, now_ms = tables.devices, self._clock.now_ms()
        with self._store.write() as connection:
            revoked = devices.update().where(devices.c.device == device, devices.c.revoked_at_ms.is_(None))
            if connection.execute(revoked.values(revoked_at_ms=now_ms)).rowcount == 0:
                raise NotFoundError(f"no device of the fleet is called {device!r}")
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
        self._accounts.accounts_changed()

    def _use_claim(self, connection: Connection, request: EnrolRequest, now_ms: int) -> None:
        claims = tables.claims
        mine = claims.c.token_digest == _digest(request.claim)
        claim = connection.execute(select(claims).where(mine)).one_or_none()
        if claim is None:
            raise RefusedError("this claim is unknown", hint="make a new one: `lineside-cloud devices claim`")
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


def accounts(store: CloudStore) -> list[tuple[str, str]]:
    """Return name and bcrypt hash of every device in the fleet, as nats-server takes them."""
    return _accounts(store, tables.devices.c.broker_password_hash)


def mosquitto_accounts(store: CloudStore) -> list[tuple[str, str]]:
    """Return name and PBKDF2 hash of every device in the fleet, as Mosquitto takes them."""
    return _accounts(store, tables.devices.c.mosquitto_password_hash)


def mosquitto_hash(password: str) -> str:
    """Return a line's second half of Mosquitto's password file: PBKDF2 with SHA-512."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, PBKDF2_ROUNDS)
    return f"$7${PBKDF2_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _accounts(store: CloudStore, password_hash: Any) -> list[tuple[str, str]]:
    devices = tables.devices.c
    query = select(devices.device, password_hash).where(devices.revoked_at_ms.is_(None), password_hash.is_not(None))
    with store.read() as connection:
        return [(name, kept) for name, kept in connection.execute(query.order_by(devices.device))]


def _with_defaults(refs: list[BundleRef]) -> Callable[[Desired], Desired]:
    def change(desired: Desired) -> Desired:
        for ref in refs:
            desired = with_default(desired, ref)
        return desired

    return change


def _check_name(device: str) -> None:
    try:
        topic(device, "up")
    except ValueError as error:
        raise InvalidError(str(error)) from error


def _check_proof(request: EnrolRequest) -> None:
    statement = enrol_statement(request.device, request.claim, request.public_key)
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(request.public_key))
        key.verify(bytes.fromhex(request.proof), statement)
    except (InvalidSignature, ValueError) as error:
        raise RefusedError(
            "the proof does not fit the public key", hint="sign `enrol_statement` with its key"
        ) from error


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
