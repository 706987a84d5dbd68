"""People: their accounts and roles, the one-time links by which they choose their passwords, and signing in.

Rules:
- Nobody is given a password: who makes an account gets a link to hand on, good once and for `INVITE_S`.
- A password that is chosen or changed, and an account that is removed, end the person's sessions and tokens in the
  same transaction; a role that is changed counts from the next request.
- A name is small letters, digits and `.`, `_`, `-`, `@`, so that it is never taken for what the control plane itself
  writes into the audit log ("conductor", "device box-1").
"""

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from cloud import audit, tables
from cloud.clock import Clock
from cloud.errors import ConflictError, InvalidError, NotFoundError, RefusedError, UnauthorizedError
from cloud.passwords import Throttle, check_password, hash_password, verify_password
from cloud.roles import Role
from cloud.sessions import digest, end_all, new_secret
from cloud.store import CloudStore, insert_ignore

INVITE_S = 72 * 3600
"""A long weekend."""
NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}")
RESERVED = ("operator", audit.CONDUCTOR)
"""Names under which the control plane's own credentials and parts stand in the audit log."""


@dataclass(frozen=True)
class Invite:
    """A link to choose a password by."""

    name: str
    token: str
    """Shown once; only its digest is kept."""
    expires_at_ms: int

    @property
    def path(self) -> str:
        """The link without the control plane's address."""
        return f"/join?invite={self.token}"


@dataclass(frozen=True)
class Person:
    """One account."""

    name: str
    role: Role
    has_password: bool
    invite_expires_at_ms: int | None
    """Until when a link that was not used yet is good; it may be over."""
    created_at_ms: int
    created_by: str

    def as_json(self) -> dict[str, Any]:
        """Return it as a document for machines."""
        return {**self.__dict__, "role": self.role.word}


class People:
    """All accounts."""

    def __init__(self, store: CloudStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.throttle = Throttle(clock)

    def exist(self) -> bool:
        """Return whether there is any account."""
        with self._store.read() as connection:
            return connection.execute(select(tables.people.c.name).limit(1)).first() is not None

    def everyone(self) -> list[Person]:
        """Return all accounts by name."""
        with self._store.read() as connection:
            return [_person(row) for row in connection.execute(select(tables.people).order_by(tables.people.c.name))]

    def add(self, name: str, role: Role, *, who: str) -> Invite:
        """Make an account; its owner chooses a password by the link that comes back.

        Raises:
            InvalidError: the name may not be one.
            ConflictError: there is one of this name.
        """
        if not NAME.fullmatch(name) or name in RESERVED:
            raise InvalidError(f"name: expected small letters, digits and . _ - @, at most 63, got {name!r}")
        now_ms = self._clock.now_ms()
        invite = self._new_invite(name, now_ms)
        row = {"name": name, "role": role.word, "created_at_ms": now_ms, "created_by": who[:64], **_kept(invite)}
        with self._store.write() as connection:
            if not insert_ignore(connection, tables.people, [row]):
                raise ConflictError(f"there is an account called {name!r}", hint="a new link: `people invite`")
            self._log(connection, who, "person_added", name, after={"role": role.word})
        return invite

    def invite(self, name: str, *, who: str, why: str = "") -> Invite:
        """Make a new link, also for somebody who forgot; it takes the place of one that was not used yet.

        Raises:
            NotFoundError: nobody is called so.
        """
        invite = self._new_invite(name, self._clock.now_ms())
        with self._store.write() as connection:
            _row_of(connection, name)
            connection.execute(tables.people.update().where(tables.people.c.name == name).values(_kept(invite)))
            self._log(connection, who, "person_invited", name, why=why)
        return invite

    def set_role(self, name: str, role: Role, *, who: str, why: str = "") -> None:
        """Let somebody do more or less from now on.

        Raises:
            NotFoundError: nobody is called so.
        """
        with self._store.write() as connection:
            before = _row_of(connection, name).role
            connection.execute(tables.people.update().where(tables.people.c.name == name).values(role=role.word))
            changed = {"before": {"role": before}, "after": {"role": role.word}}
            self._log(connection, who, "person_role_changed", name, why=why, **changed)

    def remove(self, name: str, *, who: str, why: str = "") -> None:
        """Remove an account: whoever used it is out at once. What they did stays on record.

        Raises:
            NotFoundError: nobody is called so.
        """
        with self._store.write() as connection:
            before = {"role": _row_of(connection, name).role}
            connection.execute(tables.people.delete().where(tables.people.c.name == name))
            end_all(connection, name)
            self._log(connection, who, "person_removed", name, why=why, before=before)

    def invited(self, token: str) -> str:
        """Return whom a link is for.

        Raises:
            RefusedError: it was used, is over, or was replaced by another one.
        """
        with self._store.read() as connection:
            return self._invited(connection, token)

    def join(self, token: str, password: str) -> str:
        """Keep the password that the owner of a link chose, and return the owner's name; the link is used up.

        Raises:
            RefusedError: as `invited`.
            InvalidError: the password may not be one; the link stays good.
        """
        name = self.invited(token)
        check_password(name, password)
        kept = hash_password(password)
        with self._store.write() as connection:
            self._set_password(connection, name, kept, invite=token)
        return name

    def sign_in(self, name: str, password: str, *, address: str) -> str:
        """Return the name of the account that this password belongs to.

        Raises:
            TooManyError: there were too many failed attempts.
            UnauthorizedError: name or password are wrong; which of them is not said.
        """
        name = name.strip().lower()[:64]
        self.throttle.attempt(name, address)
        kept = self._hash_of(name)
        if not verify_password(kept, password):
            raise UnauthorizedError("name or password are wrong")
        self.throttle.succeeded(name, address)
        return name

    def change_password(self, name: str, old: str, new: str, *, address: str) -> None:
        """Take another password; all sessions and tokens of the person end.

        Raises:
            TooManyError: as `sign_in`.
            RefusedError: the old one is wrong.
            InvalidError: the new one may not be one.
        """
        check_password(name, new)
        self.throttle.attempt(name, address)
        if not verify_password(self._hash_of(name), old):
            raise RefusedError("the present password is wrong")
        self.throttle.succeeded(name, address)
        kept = hash_password(new)
        with self._store.write() as connection:
            self._set_password(connection, name, kept)

    def role_of(self, name: str) -> Role:
        """Return what somebody may do.

        Raises:
            NotFoundError: nobody is called so.
        """
        with self._store.read() as connection:
            return Role.named(_row_of(connection, name).role)

    def _hash_of(self, name: str) -> str | None:
        people = tables.people.c
        if not NAME.fullmatch(name):
            return None
        with self._store.read() as connection:
            return connection.execute(select(people.password_hash).where(people.name == name)).scalar()

    def _invited(self, connection: Connection, token: str) -> str:
        people = tables.people.c
        mine = (people.invite_digest == digest(token), people.invite_expires_at_ms > self._clock.now_ms())
        name = connection.execute(select(people.name).where(*mine)).scalar()
        if name is None:
            raise RefusedError(
                "this link was used already, or its time is over", hint="ask who gave it to you for a new one"
            )
        return str(name)

    def _set_password(self, connection: Connection, name: str, kept: str, *, invite: str | None = None) -> None:
        people = tables.people
        changed = people.update().where(people.c.name == name)
        if invite is not None:
            changed = changed.where(people.c.invite_digest == digest(invite))
        values = {"password_hash": kept, "invite_digest": None, "invite_expires_at_ms": None}
        if not connection.execute(changed.values(values)).rowcount:  # it was used, or the account removed, meanwhile
            raise RefusedError("somebody was quicker", hint="ask an admin for a new link")
        end_all(connection, name)
        self._log(connection, name, "password_chosen", name)

    def _new_invite(self, name: str, now_ms: int) -> Invite:
        return Invite(name, new_secret(), now_ms + INVITE_S * 1000)

    def _log(self, connection: Connection, who: str, what: str, name: str, **rest: Any) -> None:
        audit.record(connection, at_ms=self._clock.now_ms(), who=who, what=what, data={"person": name}, **rest)


def _kept(invite: Invite) -> dict[str, Any]:
    return {"invite_digest": digest(invite.token), "invite_expires_at_ms": invite.expires_at_ms}


def _row_of(connection: Connection, name: str) -> Any:
    row = connection.execute(select(tables.people).where(tables.people.c.name == name)).one_or_none()
    if row is None:
        raise NotFoundError(f"no account is called {name!r}")
    return row


def _person(row: Any) -> Person:
    return Person(
        name=row.name,
        role=Role.named(row.role),
        has_password=row.password_hash is not None,
        invite_expires_at_ms=row.invite_expires_at_ms,
        created_at_ms=row.created_at_ms,
        created_by=row.created_by,
    )
