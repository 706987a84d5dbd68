"""People of a control plane for tests: accounts with passwords, tokens, and browsers that are signed in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from cloud.roles import Role
from cloud.services import Services
from cloud.sessions import Holder
from tests.plainhttp import NOBODY

PASSWORD = "correct horse battery"


def person(services: Services, name: str, role: str = "viewer", *, password: str = PASSWORD) -> str:
    """Make an account whose owner has chosen a password; return the name."""
    invite = services.people.add(name, Role.named(role), who="test")
    return services.people.join(invite.token, password)


def token(services: Services, name: str, role: str, *, days: float = 1) -> str:
    """Return a token of a person who has this role."""
    holder = Holder(name, Role.named(role))
    return str(services.sessions.create_token(holder, label="test", role=holder.role, days=days)["token"])


def bearer(secret: str) -> dict[str, str]:
    """Return the header that shows a token."""
    return {"Authorization": f"Bearer {secret}"}


@contextmanager
def another(client: httpx.Client, **options: Any) -> Iterator[httpx.Client]:
    """Give a second client of the same control plane, with cookies of its own; it says where it comes from."""
    origin = str(client.base_url).rstrip("/")
    headers = {"Origin": origin, **options.pop("headers", {})}
    with httpx.Client(base_url=origin, timeout=20, trust_env=False, verify=NOBODY, headers=headers, **options) as made:
        yield made


def sign_in(client: httpx.Client, name: str, password: str = PASSWORD) -> httpx.Response:
    """Send the form that begins a session."""
    return client.post("/login", data={"name": name, "password": password})
