"""Every role against every route."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from cloud.access import check_rules
from cloud.app import create_app
from cloud.errors import InvalidError
from cloud.roles import RULES, Open, Role, calls, rule_of
from tests.cloud.folk import another, bearer, person, token
from tests.cloud.serving import serving
from tests.cloud.world import World

CALLERS = ("nobody", "stranger", "device", "viewer", "reviewer", "operator", "admin")
ROLES = {role.word: role for role in Role}


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A control plane with one person of each role."""
    made = World(tmp_path_factory.mktemp("roles"))
    for role in ROLES:
        person(made.services, f"the-{role}", role)
    yield made
    made.close()


@pytest.fixture(scope="module")
def clients(plant: World) -> Iterator[dict[str, httpx.Client]]:
    """Somebody of each kind."""
    secrets = {role: token(plant.services, f"the-{role}", role) for role in ROLES}
    secrets |= {"stranger": "x" * 43, "device": plant.enrol().token}
    with serving(plant.services) as nobody:
        opened = {"nobody": nobody}
        for who, secret in secrets.items():
            with another(nobody, headers=bearer(secret)) as client:
                opened[who] = httpx.Client(base_url=client.base_url, headers=client.headers, trust_env=False)
        yield opened
        for client in opened.values():
            client.close()


@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("call", RULES)
def test_each_role_may_what_its_rule_says_and_nothing_else(
    clients: dict[str, httpx.Client], call: str, who: str
) -> None:
    method, path = call.split(" ")
    rule, role = RULES[call], ROLES.get(who)
    answer = clients[who].request(method, re.sub(r"\{(\w+)\}", "7", path), json={} if method == "POST" else None)
    said = answer.text
    if rule is Open.EVERYBODY:
        assert not [words for words in ("asks you to sign in", "token is no good", "for the role") if words in said]
    elif rule is Open.DEVICE:
        assert (answer.status_code == 401) == (who != "device"), said
    elif role is None:
        assert answer.status_code == 401, said
    elif role < rule:
        assert answer.status_code == 403, said
        assert f"this is for the role {rule.word}; the-{who} is {who}" in said
    else:
        assert answer.status_code not in (401, 403), said


@pytest.mark.parametrize("call", [call for call, rule in RULES.items() if isinstance(rule, Role)])
@pytest.mark.parametrize("twist", ["%0A", "/", "?", "%00", ";", "//"])
def test_twisted_path_is_no_way_around_the_rule(clients: dict[str, httpx.Client], call: str, twist: str) -> None:
    method, path = call.split(" ")
    twisted = re.sub(r"\{(\w+)\}", "7", path) + twist
    answer = clients["viewer"].request(method, twisted, json={} if method == "POST" else None)
    known = RULES[call] is Role.VIEWER
    assert known or answer.status_code in (403, 404, 405, 307, 400, 422), answer.text
    assert clients["nobody"].request(method, twisted).status_code in (401, 403)


def test_every_route_has_a_rule_and_every_rule_a_route(plant: World) -> None:
    assert calls(create_app(plant.services).routes) == RULES.keys()


def test_application_with_a_route_that_nobody_thought_about_does_not_start() -> None:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.get("/healthz")(lambda: None)
    check_rules(app.routes)
    app.post("/v1/secrets")(lambda: None)
    with pytest.raises(ValueError, match="POST /v1/secrets"):
        check_rules(app.routes)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("HEAD", "/", Role.VIEWER),
        ("HEAD", "/healthz", Open.EVERYBODY),
        ("GET", "/nothing", Role.VIEWER),
        ("OPTIONS", "/v1/claims", Role.VIEWER),
        ("DELETE", "/login", Role.VIEWER),
        ("GET", "/login/", Role.VIEWER),
        ("GET", "/loginx", Role.VIEWER),
        ("GET", "/static/a/b/c", Role.VIEWER),
        ("GET", "/tuf/../v1/devices", Role.VIEWER),
        ("GET", "/v1/inputs/ab/cd", Role.VIEWER),
        ("POST", "/v1/claims", Role.OPERATOR),
        ("POST", "/v1/claims\n", Role.OPERATOR),
    ],
)
def test_what_is_no_route_is_told_to_nobody_who_has_not_signed_in(method: str, path: str, expected: object) -> None:
    assert rule_of(method, path) is expected


def test_role_that_is_none_is_refused_with_the_names() -> None:
    with pytest.raises(InvalidError, match="viewer, reviewer, operator, admin, got 'root'"):
        Role.named("root")


def test_database_of_an_older_release_gets_the_tables(tmp_path: Path) -> None:
    world = World(tmp_path)
    with world.services.store.write() as connection:
        for table in ("people", "sessions", "api_tokens"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
    world.close()
    again = World(tmp_path)
    assert again.services.people.exist() is False
    again.close()
