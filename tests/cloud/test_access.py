"""Who may call what over HTTP, and what browsers are told."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cloud.config import LimitsConfig, ServerConfig
from cloud.errors import ConfigError
from tests.cloud.serving import serving
from tests.cloud.world import World

TOKEN = "an operator's secret token"


@pytest.fixture
def http(world: World) -> Iterator[httpx.Client]:
    """A client of a control plane that only this machine reaches."""
    with serving(world.services) as client:
        yield client


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a control plane that asks for the operator's token."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    world = World(tmp_path, server=ServerConfig(port=0, operator_token_file=tmp_path / "token"))
    with serving(world.services) as client:
        yield client
    world.close()


@pytest.mark.parametrize("path", ["/v1/devices", "/v1/review/queue", "/v1/bundles", "/v1/inputs/" + "0" * 64, "/"])
def test_without_the_token_nothing_of_the_operators_is_shown(guarded: httpx.Client, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Cookie": "lineside_session=x"}):
        assert guarded.get(path, headers=headers).status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/login", "/tuf/metadata/timestamp.json"])
def test_what_everybody_may_see_needs_no_token(guarded: httpx.Client, path: str) -> None:
    assert guarded.get(path).status_code != 401


def test_bearer_token_and_cookie_of_the_login_let_the_operator_in(guarded: httpx.Client) -> None:
    assert guarded.get("/v1/devices", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert guarded.post("/login", data={"token": "wrong"}).status_code == 403
    answer = guarded.post("/login", data={"token": TOKEN})
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert TOKEN not in cookie
    assert guarded.get("/v1/devices").status_code == 200


def test_browser_without_the_token_is_sent_to_the_login(guarded: httpx.Client) -> None:
    answer = guarded.get("/", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_name_that_a_foreign_page_gave_us_is_not_answered(http: httpx.Client, host: str) -> None:
    assert http.get("/v1/devices", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "localhost:8440", "[::1]:8440", "[::1]"])
def test_own_names_are_answered(http: httpx.Client, host: str) -> None:
    assert http.get("/v1/devices", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_page_of_another_site_can_change_nothing(http: httpx.Client, headers: dict[str, str]) -> None:
    assert http.post("/v1/claims", json={}, headers=headers).status_code == 403
    assert http.get("/v1/devices", headers=headers).status_code == 200


def test_own_page_and_programs_can_change_things(http: httpx.Client) -> None:
    origin = str(http.base_url).rstrip("/")
    own = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
    assert http.post("/v1/claims", json={}, headers=own).status_code == 201
    assert http.post("/v1/claims", json={}).status_code == 201


def test_every_answer_carries_the_headers_that_browsers_need(http: httpx.Client) -> None:
    for answer in (http.get("/v1/devices"), http.get("/nothing"), http.get("/v1/devices", headers={"Host": "evil"})):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe-eval" not in answer.headers["content-security-policy"]


def test_body_that_is_too_large_is_refused_before_it_is_read(http: httpx.Client) -> None:
    assert http.post("/v1/claims", content=b"x" * (2**20 + 1)).status_code == 413
    endless = (b"x" * 65536 for _ in range(64))
    assert http.post("/v1/claims", content=endless).status_code in (400, 413)


@pytest.mark.parametrize("length", ["-1", "nonsense", "1e3", "9" * 30])
def test_length_that_is_none_is_refused(http: httpx.Client, length: str) -> None:
    host, port = http.base_url.host, http.base_url.port
    with socket.create_connection((host, port), timeout=10) as raw:
        raw.sendall(f"POST /v1/claims HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{{}}".encode())
        status = int(raw.recv(4096).split()[1])
    assert status in (400, 413)


def test_address_open_to_others_without_a_token_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no operator token"):
        World(tmp_path, server=ServerConfig(host="0.0.0.0"))
    (tmp_path / "short").write_text("short")
    with pytest.raises(ConfigError, match="at least 20"):
        World(tmp_path, server=ServerConfig(host="0.0.0.0", operator_token_file=tmp_path / "short"))


def test_limit_of_inputs_comes_from_the_settings(tmp_path: Path) -> None:
    world = World(tmp_path, limits=LimitsConfig(input_bytes=2048))
    token = world.enrol().token
    with serving(world.services, headers={"Authorization": f"Bearer {token}"}) as client:
        assert client.put("/v1/inputs/" + "0" * 64, content=b"x" * 2049).status_code == 413
    world.close()
