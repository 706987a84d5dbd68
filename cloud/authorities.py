"""The control plane's authorities over time: the one that signs, the one that it is taking the place of, and their end.

| state    | what it means                                                     | goes on when                          |
|----------|-------------------------------------------------------------------|---------------------------------------|
| waiting  | made and trusted, devices are told of it; nothing is signed by it | the broker takes a certificate of it  |
| in use   | signs what is new: devices' certificates, enrolled or renewed     | another is in use                     |
| ending   | trusted, and our servers still show a certificate of it, because  | its day has come, or somebody says so |
|          | devices that were away do not know the next one yet               |                                       |
| retired  | trusted by nobody; its key is gone, its certificates are put out  |                                       |

Rules:
- Which there are stands in the database, so all copies have the same. Keys are files of one copy, or, with
  `tls.authority_secret_file`, in the database, encrypted; a copy that has neither does not start.
- One is replaced at a time; one that is not in use yet takes nobody's place.
- Every step but the first authority's making is in the audit log.
- One that ends by time is replaced by itself, long before.
"""

import logging
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from sqlalchemy import Connection, func, select, update

from cloud import audit, tables
from cloud.authority import CA_FILE, Authority, utc
from cloud.blobs import write_durably
from cloud.clock import Clock
from cloud.errors import ConfigError, ConflictError
from cloud.store import CloudStore

log = logging.getLogger(__name__)

OVERLAP_S = 90 * 86_400.0
"""How long both are trusted unless it is said: a season in a store, or a line that stands still over the holidays."""
LONGEST_OVERLAP_S = 3 * 366 * 86_400.0
REPLACE_BEFORE_MS = round(timedelta(days=3 * 365).total_seconds() * 1000)
"""Before an authority ends by time. Devices' certificates end with it, so this is also when they are renewed."""
LAST_OVERLAP_S = 2 * 365 * 86_400.0
WHO = "lineside-cloud"
"""The name under which authorities move by themselves."""
BEHIND_NAMED = 50
NO_KEY = (
    "bring the tls folder back from a backup; or, with several copies: set tls.authority_secret_file to the same file "
    "at all of them, and start the one that has the key first"
)


@dataclass(frozen=True)
class Trusted:
    """An authority that is trusted, and how far it is."""

    authority: Authority
    created_at_ms: int
    in_use_at_ms: int | None
    retire_at_ms: int | None


class Authorities:
    """All that are trusted. Belongs to its process; may be asked from any thread."""

    def __init__(self, store: CloudStore, clock: Clock, folder: Path, secret: str | None = None) -> None:
        """Open them, and make the first if there is none.

        Args:
            store: where it stands which there are.
            clock: for their dates.
            folder: of this copy, with the files that brokers and people read; keys too, without a secret.
            secret: what keys in the database are encrypted by.

        Raises:
            ConfigError: one cannot be used here, and what to do.
        """
        self._store = store
        self._clock = clock
        self._folder = folder
        self._secret = secret
        self._trusted: tuple[Trusted, ...] = ()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_first()
        self.follow()

    @property
    def trusted(self) -> tuple[Trusted, ...]:
        """All that are trusted, oldest first."""
        return self._trusted

    @property
    def shown(self) -> Authority:
        """The one whose certificate our servers show, and claims name: every device in the fleet believes it."""
        return self._trusted[0].authority

    @property
    def signing(self) -> Authority:
        """The one that signs what is new for brokers."""
        return [one for one in self._trusted if one.in_use_at_ms is not None][-1].authority

    @property
    def newest(self) -> Authority:
        """The one that devices should come to know, in use or not."""
        return self._trusted[-1].authority

    @property
    def waiting(self) -> Authority | None:
        """The one that is not in use yet."""
        last = self._trusted[-1]
        return last.authority if last.in_use_at_ms is None else None

    @property
    def ca_file(self) -> Path:
        """All that are trusted, in one file for brokers."""
        return self._folder / CA_FILE

    @property
    def pem(self) -> str:
        """The same as text, the one that is shown first."""
        return "".join(one.authority.pem for one in self._trusted)

    def follow(self) -> None:
        """Take over what was changed, here or by another copy, and write it into the folder.

        Raises:
            ConfigError: one cannot be used here.
        """
        with self._store.read() as connection:
            rows, retired = _rows(connection), _retired(connection)
        known = {one.authority.fingerprint: one.authority for one in self._trusted}
        found = tuple(
            Trusted(
                known.get(row.fingerprint) or self._opened(row), row.created_at_ms, row.in_use_at_ms, row.retire_at_ms
            )
            for row in rows
        )
        if found == self._trusted:
            return
        self._trusted = found
        write_durably(self.ca_file, self.pem.encode())
        self._forget_keys(retired)

    def rotate(self, *, who: str, why: str, overlap_s: float = OVERLAP_S, at_once: bool = False) -> Authority:
        """Make the next authority, which takes the place of the present one step by step.

        Args:
            who, why: for the audit log.
            overlap_s: how long the present one stays trusted after the next is in use.
            at_once: take it into use now, because no broker asks for certificates.

        Raises:
            ConflictError: one is being replaced already.
        """
        now_ms = self._clock.now_ms()
        made = Authority.make(utc(now_ms))
        with self._store.write() as connection:
            rows = _rows(connection)
            if len(rows) > 1:
                raise ConflictError(
                    f"the authority {rows[0].fingerprint} is still being replaced",
                    hint="wait for its end, or end it: `lineside-cloud authority retire --why REASON`",
                )
            if self._secret is None:
                made.keep(self._folder, _key_file(made))
            at_ms = max(now_ms, rows[0].created_at_ms + 1)  # they stand in this order, also if a clock was set back
            self._insert(connection, made, at_ms, in_use_at_ms=now_ms if at_once else None)
            old = tables.authorities.c.fingerprint == rows[0].fingerprint
            ends_at_ms = min(now_ms + round(overlap_s * 1000), self.shown.ends_at_ms)
            connection.execute(update(tables.authorities).where(old).values(retire_at_ms=ends_at_ms))
            about = {"authority": made.fingerprint, "instead_of": rows[0].fingerprint, "retire_at_ms": ends_at_ms}
            audit.record(connection, at_ms=now_ms, who=who, what="authority_rotated", why=why, data=about)
        self.follow()
        return made

    def take_into_use(self, fingerprint: str) -> None:
        """Have new certificates signed by the authority that waited; the overlap begins now."""
        c, now_ms = tables.authorities.c, self._clock.now_ms()
        with self._store.write() as connection:
            rows = _rows(connection)
            if len(rows) != 2 or rows[1].fingerprint != fingerprint or rows[1].in_use_at_ms is not None:
                return
            ends_at_ms = now_ms + rows[0].retire_at_ms - rows[1].created_at_ms
            connection.execute(
                update(tables.authorities).where(c.fingerprint == fingerprint).values(in_use_at_ms=now_ms)
            )
            old = update(tables.authorities).where(c.fingerprint == rows[0].fingerprint)
            connection.execute(old.values(retire_at_ms=ends_at_ms))
            about = {"authority": fingerprint, "retire_at_ms": ends_at_ms}
            audit.record(connection, at_ms=now_ms, who=WHO, what="authority_in_use", data=about)
        self.follow()

    def retire(self, *, who: str, why: str, only_if_due: bool = False) -> int:
        """End the older of two authorities; return how many devices' certificates end with it.

        Raises:
            ConflictError: there is one only, or the next is not in use yet.
        """
        now_ms = self._clock.now_ms()
        with self._store.write() as connection:
            rows = _rows(connection)
            if only_if_due and not _is_due(rows, now_ms):
                return 0
            if len(rows) < 2:
                raise ConflictError(
                    "there is one authority only", hint="make the next: `lineside-cloud authority rotate --why REASON`"
                )
            if rows[1].in_use_at_ms is None:
                raise ConflictError(
                    "the broker does not take certificates of the next authority yet",
                    hint="have it read its files again; Mosquitto reads authorities at its start only",
                )
            ended = _retire(connection, rows[0].fingerprint, now_ms)
            behind = len(behind_of(connection, rows[1].fingerprint))
            about = {"authority": rows[0].fingerprint, "certificates": ended, "devices_left_behind": behind}
            audit.record(connection, at_ms=now_ms, who=who, what="authority_retired", why=why, data=about)
        if behind:
            log.warning("%d devices do not know the new authority and have to enrol again", behind)
        self.follow()
        return ended

    def keep_up(self, *, at_once: bool = False) -> None:
        """Do what is due by time, and take over what other copies did; `at_once` as `rotate` has it."""
        now_ms = self._clock.now_ms()
        with self._store.read() as connection:
            rows = _rows(connection)
        if _is_due(rows, now_ms):
            self.retire(who=WHO, why="the overlap is over", only_if_due=True)
        elif len(rows) == 1 and self.newest.ends_at_ms - now_ms < REPLACE_BEFORE_MS:
            try:
                self.rotate(who=WHO, why="it ends in less than three years", overlap_s=LAST_OVERLAP_S, at_once=at_once)
            except ConflictError:
                log.info("another copy was quicker to make the next authority")
        self.follow()

    def _make_first(self) -> None:
        """Keep the first authority in the database: the one in the folder, or a new one."""
        with self._store.write() as connection:
            if connection.execute(select(func.count()).select_from(tables.authorities)).scalar_one():
                return
            now_ms = self._clock.now_ms()
            first = Authority.open(self._folder, utc(now_ms))
            self._insert(connection, first, now_ms, in_use_at_ms=now_ms)
            certificates = tables.certificates
            earlier = update(certificates).where(certificates.c.authority.is_(None))
            connection.execute(earlier.values(authority=first.fingerprint))

    def _insert(self, connection: Connection, made: Authority, now_ms: int, *, in_use_at_ms: int | None) -> None:
        key = None if self._secret is None else made.key_pem(self._secret).decode()
        row = {"fingerprint": made.fingerprint, "pem": made.pem, "key": key, "created_at_ms": now_ms}
        connection.execute(tables.authorities.insert().values(row | {"in_use_at_ms": in_use_at_ms}))

    def _opened(self, row: Any) -> Authority:
        """Return an authority with its key, from the database or a file."""
        if row.key is not None:
            return self._decrypted(row)
        for path in sorted(self._folder.glob("ca*.key")):
            try:
                found = Authority.load(row.pem, path.read_bytes())
            except (OSError, ValueError):
                continue
            self._share(found)
            return found
        ours = "this folder was lost, or another copy has made it"
        raise ConfigError(f"{self._folder} has no key of the certificate authority: {ours}", hint=NO_KEY)

    def _decrypted(self, row: Any) -> Authority:
        if self._secret is None:
            raise ConfigError(
                "the certificate authority's key is in the database, encrypted",
                hint="set tls.authority_secret_file to the file that the other copies have",
            )
        try:
            return Authority.load(row.pem, row.key.encode(), self._secret)
        except ValueError as error:
            raise ConfigError(
                f"the certificate authority's key in the database cannot be read: {error}",
                hint="tls.authority_secret_file must be the same at all copies",
            ) from error

    def _share(self, authority: Authority) -> None:
        """Put a key that was a file into the database, now that there is a secret."""
        if self._secret is None:
            return
        mine = tables.authorities.c.fingerprint == authority.fingerprint
        with self._store.write() as connection:
            key = authority.key_pem(self._secret).decode()
            connection.execute(update(tables.authorities).where(mine).values(key=key))

    def _forget_keys(self, retired: list[str]) -> None:
        """Remove the files of keys that are retired, or are in the database now."""
        gone = retired if self._secret is None else [*retired, *(one.authority.pem for one in self._trusted)]
        for path in self._folder.glob("ca*.key"):
            if any(_is_of(path, pem) for pem in gone):
                path.unlink(missing_ok=True)


def describe(store: CloudStore, now_ms: int) -> dict[str, Any]:
    """Return all authorities, oldest first, with the devices that each has signed for, and who is behind."""
    a, now = tables.authorities, tables.certificates.c
    with store.read() as connection:
        rows = connection.execute(select(a).order_by(a.c.created_at_ms, a.c.fingerprint)).all()
        counting = select(now.authority, func.count()).where(now.revoked_at_ms.is_(None)).group_by(now.authority)
        signed = {row[0]: row[1] for row in connection.execute(counting)}
        trusted = [row for row in rows if row.retired_at_ms is None]
        behind = behind_of(connection, trusted[-1].fingerprint) if len(trusted) > 1 else []
        claims = tables.claims.c
        unused = select(func.count()).where(
            claims.used_by_key.is_(None), claims.void_at_ms.is_(None), claims.expires_at_ms > now_ms
        )
        open_claims = connection.execute(unused).scalar_one() if len(trusted) > 1 else 0
    return {
        "authorities": [_described(row, signed.get(row.fingerprint, 0)) for row in rows],
        "behind": {"devices": len(behind), "first": behind[:BEHIND_NAMED]},
        "unused_claims": open_claims,
    }


def count_behind(connection: Connection) -> int:
    """Return how many devices do not know the next authority yet, 0 while none takes another's place."""
    rows = _rows(connection)
    return len(behind_of(connection, rows[-1].fingerprint)) if len(rows) > 1 else 0


def behind_of(connection: Connection, fingerprint: str) -> list[str]:
    """Return the devices of the fleet that were not told of an authority yet, or have no certificate of it."""
    d, c = tables.devices, tables.certificates
    good = (c.c.device == d.c.device) & c.c.revoked_at_ms.is_(None)
    told = func.coalesce(d.c.trusts, "") == fingerprint
    has = c.c.serial.is_(None) | (func.coalesce(c.c.authority, "") == fingerprint)
    query = select(d.c.device).select_from(d.outerjoin(c, good)).where(d.c.revoked_at_ms.is_(None), ~(told & has))
    return list(connection.execute(query.order_by(d.c.device)).scalars())


def _described(row: Any, devices: int) -> dict[str, Any]:
    state = "in use"
    if row.retired_at_ms is not None:
        state = "retired"
    elif row.retire_at_ms is not None:
        state = "ending"
    elif row.in_use_at_ms is None:
        state = "waiting"
    names = ("fingerprint", "created_at_ms", "in_use_at_ms", "retire_at_ms", "retired_at_ms")
    ends_at_ms = int(x509.load_pem_x509_certificate(row.pem.encode()).not_valid_after_utc.timestamp() * 1000)
    return {"state": state, "devices": devices, "ends_at_ms": ends_at_ms} | {name: getattr(row, name) for name in names}


def _rows(connection: Connection) -> list[Any]:
    a = tables.authorities
    query = select(a).where(a.c.retired_at_ms.is_(None)).order_by(a.c.created_at_ms, a.c.fingerprint)
    return list(connection.execute(query).all())


def _retired(connection: Connection) -> list[str]:
    a = tables.authorities.c
    return list(connection.execute(select(a.pem).where(a.retired_at_ms.is_not(None))).scalars())


def _is_due(rows: list[Any], now_ms: int) -> bool:
    return len(rows) > 1 and rows[1].in_use_at_ms is not None and rows[0].retire_at_ms <= now_ms


def _retire(connection: Connection, fingerprint: str, now_ms: int) -> int:
    a, c = tables.authorities.c, tables.certificates.c
    gone = update(tables.authorities).where(a.fingerprint == fingerprint)
    connection.execute(gone.values(retired_at_ms=now_ms, key=None))
    put_out = update(tables.certificates).where(c.authority == fingerprint, c.revoked_at_ms.is_(None))
    return connection.execute(put_out.values(revoked_at_ms=now_ms)).rowcount


def _key_file(authority: Authority) -> str:
    return f"ca-{authority.fingerprint[:16]}.key"


def _is_of(key_file: Path, pem: str) -> bool:
    try:
        Authority.load(pem, key_file.read_bytes())
    except (OSError, ValueError):
        return False
    return True
