"""People: links, passwords, sessions, tokens, and that they end at once."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cloud import tables
from cloud.config import ServerConfig
from cloud.errors import RefusedError
from cloud.passwords import PER_ADDRESS, PER_NAME, WINDOW_S, verify_password
from cloud.people import INVITE_S
from cloud.roles import Role
from cloud.sessions import SESSION_S
from tests.cloud.folk import PASSWORD, another, bearer, person, sign_in, token
from tests.cloud.serving import serving
from tests.cloud.world import World, decision, up

OTHER = "a quite different one"


@pytest.fixture
def http(world: World) -> Iterator[httpx.Client]:
    """A client that nobody signed in with."""
    with serving(world.services) as client:
        yield client


@pytest.fixture
def ada(world: World, http: httpx.Client) -> Iterator[httpx.Client]:
    """The browser of an admin."""
    person(world.services, "ada", "admin")
    with another(http) as client:
        assert sign_in(client, "ada").status_code == 303
        yield client


def test_who_sits_at_the_machine_may_everything_until_there_is_an_account_and_again_when_there_is_none(
    world: World, http: httpx.Client
) -> None:
    assert http.get("/v1/me").json()["role"] == "admin"
    assert http.post("/v1/claims", json={}).status_code == 201
    world.services.people.add("ada", Role.VIEWER, who="test")
    refused = http.post("/v1/claims", json={})
    assert (refused.status_code, "lineside-cloud login" in refused.json()["hint"]) == (401, True)
    world.services.people.remove("ada", who="test")
    assert http.post("/v1/claims", json={}).status_code == 201


@pytest.mark.parametrize("url", ["https://lineside.example", "http://10.0.0.7:8440"])
def test_behind_an_address_that_others_reach_nobody_is_let_in_without_signing_in(tmp_path: Path, url: str) -> None:
    world = World(tmp_path, server=ServerConfig(port=0, public_url=url))
    with serving(world.services) as http:
        assert http.get("/v1/devices").status_code == 401
        assert http.get("/v1/devices", headers={"Host": url.partition("//")[2]}).status_code == 401
        assert "people add NAME --role admin" in http.get("/login").text
    world.close()


def test_link_is_good_once_and_signs_its_owner_in(world: World, http: httpx.Client) -> None:
    invite = world.services.people.add("ada", Role.REVIEWER, who="test")
    assert "Welcome, ada" in http.get(invite.path).text
    form = {"invite": invite.token, "password": PASSWORD, "again": PASSWORD}
    assert http.post("/join", data=form | {"again": OTHER}).status_code == 422
    assert http.post("/join", data=form | {"password": "short", "again": "short"}).status_code == 422
    with another(http) as browser:
        assert browser.post("/join", data=form).status_code == 303
        assert browser.get("/v1/me").json() == {"name": "ada", "role": "reviewer", "kind": "session", "token": None}
    again = http.post("/join", data=form | {"password": OTHER, "again": OTHER})
    assert (again.status_code, "used already" in again.json()["error"]) == (403, True)
    assert http.get(invite.path).status_code == 403
    page = http.get(invite.path, headers={"Accept": "text/html"})
    assert (page.status_code, "This link was used already" in page.text) == (403, True)
    assert sign_in(http, "ada", OTHER).status_code == 401
    (row,) = world.rows(tables.people)
    assert row.password_hash.startswith("$argon2id$") and PASSWORD not in row.password_hash


def test_link_that_two_use_at_the_same_moment_is_good_for_one(world: World) -> None:
    people = world.services.people
    invite = people.add("ada", Role.VIEWER, who="test")
    start, refused = threading.Barrier(2), []

    def join(password: str) -> None:
        start.wait(10)
        try:
            people.join(invite.token, password)
        except RefusedError:
            refused.append(password)

    both = [threading.Thread(target=join, args=(password,)) for password in (PASSWORD, OTHER)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(30)
    (loser,) = refused
    kept = world.rows(tables.people)[0].password_hash
    assert (verify_password(kept, PASSWORD), verify_password(kept, OTHER)) == (loser == OTHER, loser == PASSWORD)


def test_link_that_is_over_or_was_replaced_is_no_good(world: World, http: httpx.Client) -> None:
    first = world.services.people.add("ada", Role.VIEWER, who="test")
    second = world.services.people.invite("ada", who="test")
    assert http.get(first.path).status_code == 403
    world.clock.forward(INVITE_S - 1)
    assert http.get(second.path).status_code == 200
    world.clock.forward(1)
    assert http.get(second.path).status_code == 403
    assert http.get("/join").status_code == 403


def test_link_for_who_forgot_leaves_the_old_password_until_it_is_used(world: World, http: httpx.Client) -> None:
    person(world.services, "ada")
    with another(http) as browser:
        sign_in(browser, "ada")
        invite = world.services.people.invite("ada", who="test")
        assert browser.get("/v1/me").status_code == 200
        world.services.people.join(invite.token, OTHER)
        assert browser.get("/v1/me").status_code == 401
        assert sign_in(browser, "ada").status_code == 401
        assert sign_in(browser, "ada", OTHER).status_code == 303


def test_session_is_over_after_a_shift_and_after_signing_out(world: World, ada: httpx.Client) -> None:
    kept = dict(ada.cookies)
    assert ada.get("/v1/me").json()["name"] == "ada"
    assert ada.post("/logout").headers["location"] == "/login"
    assert "lineside_session" not in ada.cookies
    with another(ada, cookies=kept) as thief:
        assert thief.get("/v1/me").status_code == 401
        sign_in(thief, "ada")
        world.clock.forward(SESSION_S - 1)
        assert thief.get("/v1/me").status_code == 200
        world.clock.forward(1)
        assert thief.get("/v1/me").status_code == 401
        sign_in(thief, "ada")
    assert world.count(tables.sessions) == 1, "what is over is not kept"


def test_cookie_is_kept_from_scripts_and_from_plain_http_where_there_is_tls(tmp_path: Path) -> None:
    for url, secure in (("", False), ("https://lineside.example", True)):
        world = World(tmp_path / str(secure), server=ServerConfig(port=0, public_url=url))
        person(world.services, "ada")
        with serving(world.services) as http:
            cookie = sign_in(http, "ada").headers["set-cookie"]
        assert ("HttpOnly" in cookie, "SameSite=lax" in cookie, "Secure" in cookie) == (True, True, secure)
        world.close()


def test_removed_person_is_out_at_once_everywhere(world: World, http: httpx.Client, ada: httpx.Client) -> None:
    person(world.services, "bob", "operator")
    script = bearer(token(world.services, "bob", "operator"))
    with another(http) as bob:
        sign_in(bob, "bob")
        assert (bob.get("/v1/me").status_code, http.get("/v1/me", headers=script).status_code) == (200, 200)
        assert ada.post("/v1/people/bob/remove", json={"why": "left"}).status_code == 204
        assert (bob.get("/v1/me").status_code, http.get("/v1/me", headers=script).status_code) == (401, 401)
        assert sign_in(bob, "bob").status_code == 401
        person(world.services, "bob", "operator")
        assert http.get("/v1/me", headers=script).status_code == 401, "a namesake does not bring it back"
    assert [person_["name"] for person_ in ada.get("/v1/people").json()] == ["ada", "bob"]


def test_role_that_is_changed_counts_from_the_next_request(world: World, http: httpx.Client, ada: httpx.Client) -> None:
    person(world.services, "bob", "operator")
    script = bearer(token(world.services, "bob", "operator"))
    assert http.post("/v1/claims", json={}, headers=script).status_code == 201
    assert ada.post("/v1/people/bob/role", json={"role": "viewer"}).status_code == 204
    refused = http.post("/v1/claims", json={}, headers=script)
    assert (refused.status_code, refused.json()["error"]) == (403, "this is for the role operator; bob is viewer")
    assert ada.post("/v1/people/bob/role", json={"role": "root"}).status_code == 422
    assert ada.post("/v1/people/ada/role", json={"role": "viewer"}).status_code == 409
    assert ada.post("/v1/people/ada/remove", json={}).status_code == 409


def test_changed_password_ends_all_sessions_but_the_one_that_changed_it_and_all_tokens(
    world: World, http: httpx.Client, ada: httpx.Client
) -> None:
    script = bearer(token(world.services, "ada", "admin"))
    with another(http) as elsewhere:
        sign_in(elsewhere, "ada")
        wrong = ada.post("/v1/me/password", json={"old": OTHER, "new": OTHER})
        assert (wrong.status_code, elsewhere.get("/v1/me").status_code) == (403, 200)
        assert ada.post("/v1/me/password", json={"old": PASSWORD, "new": "ada"}).status_code == 422
        assert ada.post("/v1/me/password", json={"old": PASSWORD, "new": OTHER}).status_code == 204
        assert elsewhere.get("/v1/me").status_code == 401
        assert http.get("/v1/me", headers=script).status_code == 401
        assert ada.get("/v1/me").status_code == 200
        assert sign_in(elsewhere, "ada").status_code == 401
        assert sign_in(elsewhere, "ada", OTHER).status_code == 303


def test_token_may_at_most_what_its_owner_may_and_ends_on_its_day(world: World, http: httpx.Client) -> None:
    person(world.services, "bob", "operator")
    login = {"name": "bob", "password": PASSWORD}
    assert http.post("/v1/login", json=login | {"password": OTHER}).status_code == 401
    made = http.post("/v1/login", json=login | {"days": 2}).json()
    own = bearer(made["token"])
    assert http.get("/v1/me", headers=own).json()["kind"] == "token"
    beyond = http.post("/v1/tokens", json={"label": "x", "role": "admin"}, headers=own)
    assert (beyond.status_code, "at most your own, operator" in beyond.json()["error"]) == (422, True)
    assert http.post("/v1/tokens", json={"label": "x", "days": 367}, headers=own).status_code == 422
    small = http.post("/v1/tokens", json={"label": "look", "role": "viewer"}, headers=own).json()
    looking = bearer(small["token"])
    assert http.get("/v1/devices", headers=looking).status_code == 200
    refused = http.post("/v1/claims", json={}, headers=looking)
    assert (refused.status_code, "stays what it was made for" in refused.json()["hint"]) == (403, True)
    listed = http.get("/v1/tokens", headers=own).json()
    assert {one["label"] for one in listed} == {"command line", "look"}
    assert all("token" not in one and "digest" not in one for one in listed)
    assert http.delete(f"/v1/tokens/{small['id']}", headers=own).status_code == 204
    assert http.get("/v1/devices", headers=looking).status_code == 401
    assert http.delete(f"/v1/tokens/{small['id']}", headers=own).status_code == 404
    world.clock.forward(2 * 86_400)
    assert http.get("/v1/me", headers=own).status_code == 401
    kept = {row.digest for row in world.rows(tables.api_tokens)}
    assert made["token"] not in kept


def test_nobody_revokes_the_token_of_another(world: World, http: httpx.Client, ada: httpx.Client) -> None:
    person(world.services, "bob", "operator")
    script = bearer(token(world.services, "bob", "operator"))
    (row,) = world.rows(tables.api_tokens)
    assert ada.delete(f"/v1/tokens/{row.id}").status_code == 404
    assert http.get("/v1/me", headers=script).status_code == 200


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_page_of_another_site_can_neither_sign_in_nor_out_nor_change_anything(
    world: World, ada: httpx.Client, headers: dict[str, str]
) -> None:
    invite = world.services.people.add("bob", Role.ADMIN, who="test")
    forms: list[tuple[str, dict[str, str]]] = [
        ("/login", {"name": "ada", "password": PASSWORD}),
        ("/join", {"invite": invite.token, "password": PASSWORD, "again": PASSWORD}),
        ("/logout", {}),
    ]
    for path, form in forms:
        assert ada.post(path, data=form, headers=headers).status_code == 403, path
    for path in ("/v1/people/bob/remove", "/v1/claims", "/v1/tokens", "/v1/me/password"):
        assert ada.post(path, json={}, headers=headers).status_code == 403, path
    assert ada.get("/v1/me").status_code == 200
    assert len(world.services.people.everyone()) == 2


def test_change_by_a_session_must_say_where_it_comes_from(world: World, ada: httpx.Client) -> None:
    del ada.headers["Origin"]
    assert ada.get("/v1/me").status_code == 200
    assert ada.post("/v1/claims", json={}).status_code == 403
    assert ada.post("/v1/claims", json={}, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 201


def test_page_of_the_public_address_is_ours_whatever_a_proxy_makes_of_the_host(tmp_path: Path) -> None:
    world = World(tmp_path, server=ServerConfig(port=0, public_url="https://lineside.example"))
    person(world.services, "ada", "admin")
    with serving(world.services, headers={"Origin": "https://lineside.example"}) as http:
        assert sign_in(http, "ada").status_code == 303
    world.close()


def test_too_many_wrong_passwords_of_a_name_are_not_even_tried(
    world: World, http: httpx.Client, ada: httpx.Client
) -> None:
    person(world.services, "bob")
    for _ in range(PER_NAME):
        assert sign_in(http, "ada", OTHER).status_code == 401
    held = sign_in(http, "ada")
    assert (held.status_code, int(held.headers["retry-after"])) == (429, int(WINDOW_S))
    assert http.post("/v1/login", json={"name": "ada", "password": PASSWORD}).status_code == 429
    assert ada.post("/v1/me/password", json={"old": PASSWORD, "new": OTHER}).status_code == 429
    page = http.post("/login", data={"name": "ada", "password": PASSWORD}, headers={"Accept": "text/html"})
    assert (page.status_code, "Too many failed attempts" in page.text) == (429, True)
    assert ada.get("/v1/me").status_code == 200, "who is signed in stays so"
    assert sign_in(http, "bob").status_code == 303, "others may"
    world.clock.forward(WINDOW_S)
    assert sign_in(http, "ada").status_code == 303


def test_list_of_names_is_held_up_by_its_address(world: World, http: httpx.Client) -> None:
    person(world.services, "ada")
    for number in range(PER_ADDRESS):
        assert sign_in(http, "ada" if number == 5 else f"name-{number}", PASSWORD).status_code in (401, 303)
    assert sign_in(http, "name-x").status_code == 401, "the right one did not count"
    assert sign_in(http, "ada").status_code == 429


def test_operators_token_cannot_be_guessed_at_the_form_either(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("an operator's secret token")
    world = World(tmp_path, server=ServerConfig(port=0, operator_token_file=tmp_path / "token"))
    with serving(world.services) as http:
        for _ in range(PER_NAME):
            assert http.post("/login", data={"token": "wrong"}).status_code == 403
        assert http.post("/login", data={"token": "an operator's secret token"}).status_code == 429
    world.close()


def test_session_of_the_operators_token_ends_when_the_token_is_another_one(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("an operator's secret token")
    server = ServerConfig(port=0, operator_token_file=tmp_path / "token")
    world = World(tmp_path, server=server)
    with serving(world.services) as http:
        assert http.post("/login", data={"token": "an operator's secret token"}).status_code == 303
        assert http.get("/v1/me").json() == {"name": "operator", "role": "admin", "kind": "session", "token": None}
        kept = dict(http.cookies)
    world.close()
    (tmp_path / "token").write_text("another operator's token")
    world = World(tmp_path, server=server)
    with serving(world.services, cookies=kept) as http:
        assert http.get("/v1/me").status_code == 401
    world.close()


def test_audit_log_names_the_person_whatever_the_caller_says(
    world: World, http: httpx.Client, ada: httpx.Client
) -> None:
    world.enrol("box-1")
    world.take(up("box-1", [decision(1, verdict="defer", action="hand_over", reason="unsure")]))
    ada.headers["Lineside-Who"] = "mallory"
    assert ada.post("/v1/claims", json={}).status_code == 201
    answer = {"answer": "pass", "reviewer": "mallory"}
    assert ada.post("/v1/review/box-1/i1/1", json=answer).status_code == 201
    bob = ada.post("/v1/people", json={"name": "bob", "role": "operator"}).json()
    secret = re.sub(r".*=", "", bob["path"])
    assert http.post("/join", data={"invite": secret, "password": PASSWORD, "again": PASSWORD}).status_code == 303
    script = bearer(token(world.services, "bob", "operator"))
    revoked = http.post("/v1/devices/box-1/revoke", json={"why": "x"}, headers=script | {"Lineside-Who": "mallory"})
    assert revoked.status_code == 204
    ada.post("/v1/people/bob/role", json={"role": "viewer", "why": "too much"})
    ada.post("/v1/people/bob/remove", json={})
    rows = [(row.who, row.what) for row in world.rows(tables.audit_log)]
    start = rows.index(("ada", "claim_created"))
    assert rows[start:] == [
        ("ada", "claim_created"),
        ("ada", "decision_reviewed"),
        ("ada", "person_added"),
        ("bob", "password_chosen"),
        ("bob", "token_created"),
        ("bob", "device_revoked"),
        ("ada", "person_role_changed"),
        ("ada", "person_removed"),
    ]
    changed = next(row for row in world.rows(tables.audit_log) if row.what == "person_role_changed")
    assert (changed.before, changed.after, changed.why) == ({"role": "operator"}, {"role": "viewer"}, "too much")
    assert [row.reviewer for row in world.rows(tables.reviews)] == ["ada"]


@pytest.mark.parametrize(
    "name", ["", "Ada", "a b", "operator", "conductor", "device box-1", "a" * 64, "-a", "ä", "a\n"]
)
def test_name_that_could_be_taken_for_another_is_refused(ada: httpx.Client, name: str) -> None:
    assert ada.post("/v1/people", json={"name": name, "role": "viewer"}).status_code == 422


def test_name_is_given_once(ada: httpx.Client) -> None:
    assert ada.post("/v1/people", json={"name": "ada", "role": "viewer"}).status_code == 409
    assert ada.post("/v1/people/eve/invite", json={}).status_code == 404


def test_account_pages_are_for_who_has_an_account(world: World, http: httpx.Client) -> None:
    assert http.post("/v1/tokens", json={"label": "x"}).status_code == 409
    assert http.post("/v1/me/password", json={"old": "x", "new": OTHER}).status_code == 409
    assert http.get("/v1/tokens").json() == []
