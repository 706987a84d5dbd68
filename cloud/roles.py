"""Who may call what: the four roles of people, and the smallest one that each route asks for.

Rules:
- `RULES` names every route of the application; one that is missing here stops the application from starting.
- A role may do all that the roles before it may.
- Pictures and sounds show people and parts, so seeing them is more than seeing figures: it asks for `reviewer`.
- What is not a route is told to nobody but those who signed in.
"""

import re
from collections.abc import Iterable
from enum import IntEnum, StrEnum
from typing import Literal

from starlette.routing import compile_path

from cloud.errors import InvalidError


class Role(IntEnum):
    """What a person may do; a larger one includes the smaller ones."""

    VIEWER = 1
    """Sees states and figures, no pictures or sounds."""
    REVIEWER = 2
    """Sees pictures and sounds too, and answers what was deferred."""
    OPERATOR = 3
    """Takes devices in and puts them out, publishes bundles, moves rollouts."""
    ADMIN = 4
    """Makes and removes accounts, changes their roles, and replaces the authority."""

    @classmethod
    def named(cls, name: str) -> "Role":
        """Return the role of this name.

        Raises:
            InvalidError: there is none.
        """
        try:
            return cls[name.upper()]
        except KeyError:
            known = ", ".join(role.word for role in cls)
            raise InvalidError(f"role: expected one of {known}, got {name!r}") from None

    @property
    def word(self) -> str:
        """The role's name as people write it."""
        return self.name.lower()


class Open(StrEnum):
    """What asks for no person."""

    EVERYBODY = "everybody"
    """Proves itself (enrolment), is signed (bundles), or holds nothing worth guarding."""
    DEVICE = "device"
    """The token of a device in the fleet."""


RoleWord = Literal["viewer", "reviewer", "operator", "admin"]
"""A role as people write it."""
Rule = Role | Open

RULES: dict[str, Rule] = {
    # everybody
    "GET /healthz": Open.EVERYBODY,
    "GET /favicon.ico": Open.EVERYBODY,
    "GET /static/{code}/{name}": Open.EVERYBODY,
    "GET /login": Open.EVERYBODY,
    "POST /login": Open.EVERYBODY,
    "POST /v1/login": Open.EVERYBODY,
    "GET /join": Open.EVERYBODY,
    "POST /join": Open.EVERYBODY,
    "GET /v1/ca": Open.EVERYBODY,
    "POST /v1/enrol": Open.EVERYBODY,
    "GET /tuf/metadata/{file}": Open.EVERYBODY,
    "GET /tuf/targets/{file}": Open.EVERYBODY,
    "GET /tuf/deltas/{old}/{new}": Open.EVERYBODY,
    # devices
    "PUT /v1/inputs/{digest}": Open.DEVICE,
    "GET /v1/trust": Open.DEVICE,
    "POST /v1/renew": Open.DEVICE,
    # viewers
    "GET /": Role.VIEWER,
    "GET /devices/{device}": Role.VIEWER,
    "GET /devices/{device}/decisions/{incarnation}/{seq}": Role.VIEWER,
    "GET /rollouts": Role.VIEWER,
    "GET /rollouts/{rollout}": Role.VIEWER,
    "GET /models": Role.VIEWER,
    "GET /account": Role.VIEWER,
    "POST /logout": Role.VIEWER,
    "GET /v1/openapi.json": Role.VIEWER,
    "GET /v1/devices": Role.VIEWER,
    "GET /v1/devices/{device}": Role.VIEWER,
    "GET /v1/devices/{device}/decisions": Role.VIEWER,
    "GET /v1/devices/{device}/events": Role.VIEWER,
    "GET /v1/devices/{device}/telemetry": Role.VIEWER,
    "GET /v1/events": Role.VIEWER,
    "GET /v1/bundles": Role.VIEWER,
    "GET /v1/bundles/targets": Role.VIEWER,
    "GET /v1/bundles/{name}/{version}": Role.VIEWER,
    "GET /v1/bundles/{name}/{first}/compare/{second}": Role.VIEWER,
    "GET /models/{name}": Role.VIEWER,
    "GET /models/{name}/compare": Role.VIEWER,
    "GET /v1/rollouts": Role.VIEWER,
    "GET /v1/rollouts/{rollout}": Role.VIEWER,
    "GET /metrics": Role.VIEWER,
    "GET /telemetry": Role.VIEWER,
    "GET /drift": Role.VIEWER,
    "GET /drift/{device}": Role.VIEWER,
    "GET /v1/drift": Role.VIEWER,
    "GET /alerts": Role.VIEWER,
    "GET /v1/alerts": Role.VIEWER,
    "GET /v1/retrainings": Role.VIEWER,
    "GET /v1/datasets": Role.VIEWER,
    "GET /v1/metrics": Role.VIEWER,
    "GET /v1/metrics/query": Role.VIEWER,
    "GET /v1/authority": Role.VIEWER,
    "GET /v1/me": Role.VIEWER,
    "POST /v1/me/password": Role.VIEWER,
    "GET /v1/tokens": Role.VIEWER,
    "POST /v1/tokens": Role.VIEWER,
    "DELETE /v1/tokens/{token}": Role.VIEWER,
    # reviewers
    "GET /review": Role.REVIEWER,
    "GET /v1/inputs/{digest}": Role.REVIEWER,
    "GET /v1/review/queue": Role.REVIEWER,
    "GET /v1/review/next": Role.REVIEWER,
    "POST /v1/review/{device}/{incarnation}/{seq}": Role.REVIEWER,
    "DELETE /v1/review/answers/{answer}": Role.REVIEWER,
    "GET /v1/datasets/{digest}": Role.REVIEWER,
    # operators
    "POST /v1/alerts/{alert}/ack": Role.OPERATOR,
    "POST /v1/alerts/silences": Role.OPERATOR,
    "DELETE /v1/alerts/silences/{silence}": Role.OPERATOR,
    "POST /v1/retrainings": Role.OPERATOR,
    "POST /v1/datasets": Role.OPERATOR,
    "GET /audit": Role.OPERATOR,
    "GET /cards": Role.OPERATOR,
    "GET /v1/cards": Role.OPERATOR,
    "POST /v1/cards": Role.OPERATOR,
    "GET /v1/cards/{card}": Role.OPERATOR,
    "DELETE /v1/cards/{card}": Role.OPERATOR,
    "POST /v1/claims": Role.OPERATOR,
    "POST /v1/devices/{device}/revoke": Role.OPERATOR,
    "POST /v1/bundles": Role.OPERATOR,
    "POST /v1/bundles/{name}/{version}/default": Role.OPERATOR,
    "POST /v1/bundles/{name}/{version}/approve": Role.OPERATOR,
    "POST /v1/bundles/{name}/{version}/retire": Role.OPERATOR,
    "POST /v1/bundles/{name}/{version}/file": Role.OPERATOR,
    "POST /v1/bundles/gc": Role.OPERATOR,
    "POST /v1/rollouts": Role.OPERATOR,
    "POST /v1/rollouts/{rollout}/pause": Role.OPERATOR,
    "POST /v1/rollouts/{rollout}/resume": Role.OPERATOR,
    "POST /v1/rollouts/{rollout}/abort": Role.OPERATOR,
    # admins
    "POST /v1/authority/rotate": Role.ADMIN,
    "POST /v1/authority/retire": Role.ADMIN,
    "GET /people": Role.ADMIN,
    "GET /v1/people": Role.ADMIN,
    "POST /v1/people": Role.ADMIN,
    "POST /v1/people/{name}/role": Role.ADMIN,
    "POST /v1/people/{name}/invite": Role.ADMIN,
    "POST /v1/people/{name}/remove": Role.ADMIN,
}


FOR_DEVICES = frozenset(
    {
        "GET /healthz",
        "GET /v1/ca",
        "POST /v1/enrol",
        "GET /v1/trust",
        "POST /v1/renew",
        "GET /tuf/metadata/{file}",
        "GET /tuf/targets/{file}",
        "GET /tuf/deltas/{old}/{new}",
        "PUT /v1/inputs/{digest}",
    }
)
"""All that is to be had at the port for devices; console and the rest of the API are for the other one."""


def is_for_devices(method: str, path: str) -> bool:
    """Return whether devices call this."""
    wanted = "GET" if method == "HEAD" else method
    return any(known == wanted and pattern.match(path) for known, pattern in _DEVICES)


def rule_of(method: str, path: str) -> Rule:
    """Return what a request asks for; where there is no such route, to be signed in."""
    wanted = "GET" if method == "HEAD" else method
    for known, pattern, rule in _COMPILED:
        if known == wanted and pattern.match(path):  # as the router does it: "/v1/claims\n" is a route, too
            return rule
    return Role.VIEWER


def methods_of(path: str) -> set[str]:
    """Return the methods that an address knows, none where there is no such route."""
    return {known for known, pattern, _rule in _COMPILED if pattern.match(path)}


def unruled(routes: Iterable[object]) -> set[str]:
    """Return the calls among an application's routes that `RULES` does not name."""
    return calls(routes) - RULES.keys()


def calls(routes: Iterable[object]) -> set[str]:
    """Return "METHOD /path" of every route, those of included routers too."""
    found: set[str] = set()
    for route in routes:
        inner = getattr(route, "original_router", None)  # how FastAPI keeps a router that was included
        if inner is not None:
            found |= calls(inner.routes)
        else:
            methods = getattr(route, "methods", None) or {"ANY"}
            found |= {f"{method} {getattr(route, 'path', route)}" for method in methods - {"HEAD"}}
    return found


def _compiled() -> list[tuple[str, re.Pattern[str], Rule]]:
    return [(call.split(" ")[0], compile_path(call.split(" ")[1])[0], rule) for call, rule in RULES.items()]


_COMPILED = _compiled()
_DEVICES = [(known, pattern) for (known, pattern, _), call in zip(_COMPILED, RULES, strict=True) if call in FOR_DEVICES]
