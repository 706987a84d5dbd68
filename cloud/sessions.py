"""What shows that somebody signed in: sessions of browsers, and tokens of scripts and the command line.

Rules:
- A secret is 256 random bits, made here, shown once, and kept as its SHA-256 only.
- What it may is looked up at every request: an account that is gone or a role that was taken away counts at once.
- A session ends after a shift, a token on its day; both end with the person's password or account.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from cloud import audit, tables
from cloud.clock import Clock
from cloud.errors import InvalidError, NotFoundError
from cloud.roles import Role
from cloud.store import CloudStore

SECRET_BYTES = 32
SESSION_S = 12 * 3600
"""A working shift."""
LONGEST_TOKEN_DAYS = 366.0
OPERATOR = "operator"


@dataclass(frozen=True)
class Holder:
    """Whose secret it is, and what the secret may."""

    name: str
    role: Role
    token_id: str | None = None


class Sessions:
    """Sessions and tokens of everybody."""

    def __init__(self, store: CloudStore, clock: Clock, operator_token: str | None) -> None:
        self._store = store
        self._clock = clock
        self._operator = None if operator_token is None else operator_mark(operator_token)

    def start(self, name: str) -> str:
        """Begin a session of this person (`operator_mark` for whoever showed that token); return its secret."""
        secret, now_ms = new_secret(), self._clock.now_ms()
        sessions = tables.sessions
        row = {"digest": digest(secret), "person": name, "created_at_ms": now_ms}
        with self._store.write() as connection:
            connection.execute(sessions.delete().where(sessions.c.expires_at_ms <= now_ms))
            connection.execute(sessions.insert().values(**row, expires_at_ms=now_ms + SESSION_S * 1000))
        return secret

    def end(self, secret: str) -> None:
        """End a session; one that is over is as well."""
        with self._store.write() as connection:
            connection.execute(tables.sessions.delete().where(tables.sessions.c.digest == digest(secret)))

    def holder(self, secret: str) -> Holder | None:
        """Return whose session it is, or None if it is nobody's or over."""
        sessions, people = tables.sessions.c, tables.people.c
        query = (
            select(sessions.person, people.role)
            .outerjoin_from(tables.sessions, tables.people, people.name == sessions.person)
            .where(sessions.digest == digest(secret), sessions.expires_at_ms > self._clock.now_ms())
        )
        with self._store.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        if row.role is not None:
            return Holder(row.person, Role.named(row.role))
        return Holder(OPERATOR, Role.ADMIN) if row.person == self._operator else None

    def create_token(self, holder: Holder, *, label: str, role: Role, days: float) -> dict[str, Any]:
        """Make a token for the interface; the answer is the only place where it is shown.

        Raises:
            InvalidError: it would do more than its owner may, or live longer than a year.
        """
        if role > holder.role:
            raise InvalidError(f"role: expected at most your own, {holder.role.word}, got {role.word}")
        if not 0 < days <= LONGEST_TOKEN_DAYS:
            raise InvalidError(f"days: expected more than 0 and at most {LONGEST_TOKEN_DAYS:.0f}, got {days}")
        now_ms, token = self._clock.now_ms(), new_secret()
        row = {
            "id": secrets.token_hex(6),
            "person": holder.name,
            "label": label,
            "role": role.word,
            "created_at_ms": now_ms,
            "expires_at_ms": now_ms + round(days * 86_400_000),
        }
        with self._store.write() as connection:
            connection.execute(tables.api_tokens.insert().values(**row, digest=digest(token)))
            data = {name: row[name] for name in ("id", "person", "label", "role", "expires_at_ms")}
            audit.record(connection, at_ms=now_ms, who=holder.name, what="token_created", data=data)
        return {**row, "token": token}

    def tokens(self, name: str) -> list[dict[str, Any]]:
        """Return a person's tokens that are good, newest first, without the secrets."""
        c = tables.api_tokens.c
        columns = (c.id, c.person, c.label, c.role, c.created_at_ms, c.expires_at_ms)
        good = (c.person == name, c.revoked_at_ms.is_(None), c.expires_at_ms > self._clock.now_ms())
        with self._store.read() as connection:
            rows = connection.execute(select(*columns).where(*good).order_by(c.created_at_ms.desc(), c.id))
            return [dict(row) for row in rows.mappings()]

    def revoke_token(self, name: str, token_id: str) -> None:
        """Put one of a person's tokens out of use.

        Raises:
            NotFoundError: the person has none of this number.
        """
        c, now_ms = tables.api_tokens.c, self._clock.now_ms()
        mine = (c.person == name, c.id == token_id, c.revoked_at_ms.is_(None))
        with self._store.write() as connection:
            revoked = connection.execute(tables.api_tokens.update().where(*mine).values(revoked_at_ms=now_ms))
            if not revoked.rowcount:
                raise NotFoundError(f"you have no token {token_id!r}")
            audit.record(connection, at_ms=now_ms, who=name, what="token_revoked", data={"id": token_id})

    def token_holder(self, token: str) -> Holder | None:
        """Return whose token it is, with the smaller of its own role and the person's; None if it is no good."""
        tokens, people = tables.api_tokens.c, tables.people.c
        query = (
            select(tokens.id, tokens.person, tokens.role, people.role.label("persons"))
            .join_from(tables.api_tokens, tables.people, people.name == tokens.person)
            .where(
                tokens.digest == digest(token),
                tokens.revoked_at_ms.is_(None),
                tokens.expires_at_ms > self._clock.now_ms(),
            )
        )
        with self._store.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return Holder(row.person, min(Role.named(row.role), Role.named(row.persons)), row.id)


def end_all(connection: Connection, name: str) -> None:
    """End a person's sessions and tokens."""
    connection.execute(tables.sessions.delete().where(tables.sessions.c.person == name))
    connection.execute(tables.api_tokens.delete().where(tables.api_tokens.c.person == name))


def operator_mark(token: str) -> str:
    """Return whose session it is that began with the operator's token: over as soon as the token is another one."""
    return f"{OPERATOR}:{digest('lineside-operator-1:' + token)[:32]}"


def new_secret() -> str:
    """Return 256 random bits as text."""
    return secrets.token_urlsafe(SECRET_BYTES)


def digest(secret: str) -> str:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
