"""Accounts, for admins.

| call                             | body            | answer                                             |
|----------------------------------|-----------------|----------------------------------------------------|
| `GET /v1/people`                 |                 | everybody with an account                          |
| `POST /v1/people`                | `PersonRequest` | 201 and a one-time link, shown here only           |
| `POST /v1/people/{name}/invite`  | `Why`           | 201 and a new link                                 |
| `POST /v1/people/{name}/role`    | `RoleRequest`   | 204                                                |
| `POST /v1/people/{name}/remove`  | `Why`           | 204; the person's sessions and tokens are over     |

Nobody changes their own role or removes themselves, so that there is always an admin.
"""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from cloud.callers import Calling
from cloud.errors import ConflictError
from cloud.people import NAME, Invite
from cloud.roles import Role, RoleWord
from cloud.services import Parts

router = APIRouter(prefix="/v1/people")


class Why(BaseModel):
    """The reason, kept in the audit log."""

    model_config = ConfigDict(extra="forbid")

    why: str = Field(default="", max_length=2000)


class PersonRequest(BaseModel):
    """A new account."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=f"^{NAME.pattern}$")
    role: RoleWord


class RoleRequest(Why):
    """What somebody may do from now on."""

    role: RoleWord


@router.get("")
def people(parts: Parts) -> list[dict[str, Any]]:
    """List all accounts."""
    return [person.as_json() for person in parts.people.everyone()]


@router.post("", status_code=201)
def add(body: PersonRequest, parts: Parts, caller: Calling) -> dict[str, Any]:
    """Make an account."""
    return _link(parts.people.add(body.name, Role.named(body.role), who=caller.name))


@router.post("/{name}/invite", status_code=201)
def invite(name: str, body: Why, parts: Parts, caller: Calling) -> dict[str, Any]:
    """Make a new link."""
    return _link(parts.people.invite(name, who=caller.name, why=body.why))


@router.post("/{name}/role", status_code=204)
def change_role(name: str, body: RoleRequest, parts: Parts, caller: Calling) -> None:
    """Let somebody do more or less."""
    _refuse_self(caller.name, name)
    parts.people.set_role(name, Role.named(body.role), who=caller.name, why=body.why)


@router.post("/{name}/remove", status_code=204)
def remove(name: str, body: Why, parts: Parts, caller: Calling) -> None:
    """Remove an account."""
    _refuse_self(caller.name, name)
    parts.people.remove(name, who=caller.name, why=body.why)


def _refuse_self(caller: str, name: str) -> None:
    if caller == name:
        raise ConflictError("nobody changes their own role or removes themselves", hint="ask another admin")


def _link(invite: Invite) -> dict[str, Any]:
    return {"name": invite.name, "path": invite.path, "expires_at_ms": invite.expires_at_ms}
