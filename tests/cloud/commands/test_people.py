"""Accounts by the command line, against a control plane that runs as a process."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from typer.testing import CliRunner

from cloud.__main__ import app
from tests.cloud.folk import PASSWORD
from tests.cloud.process import ServeProcess, run


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[ServeProcess]:
    """A control plane without any account."""
    with ServeProcess(tmp_path / "data", "--broker-port", "0") as process:
        yield process


def _join(link: str) -> httpx.Response:
    parts = urlsplit(link)
    form = {"invite": parse_qs(parts.query)["invite"][0], "password": PASSWORD, "again": PASSWORD}
    return httpx.post(f"{parts.scheme}://{parts.netloc}/join", data=form, trust_env=False)


def _login(name: str, password: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run("login", name, *options, words=f"{password}\n")


def test_first_account_by_link_then_a_token_for_commands_until_the_account_is_removed(
    cloud: ServeProcess, tmp_path: Path
) -> None:
    here, url = ("--data-dir", str(cloud.data_dir)), cloud.addresses["url"]
    server = ("--server", url)
    assert run("devices", *server).returncode == 0
    assert "Nobody has an account" in run("people", "list", *here).stdout
    added = run("people", "add", "ada", "--role", "reviewer", "--url", url, *here)
    assert (added.returncode, "everybody has to sign in" in added.stderr) == (0, True), added.stderr
    refused = run("devices", *server)
    assert (refused.returncode, "lineside-cloud login" in refused.stderr) == (4, True)
    assert _join(added.stdout.strip()).status_code == 303
    file = tmp_path / "token"
    wrong = _login("ada", "not her password", "--token-file", str(file), *server)
    assert (wrong.returncode, "name or password are wrong" in wrong.stderr, file.exists()) == (4, True, False)
    signed = _login("ada", PASSWORD, "--token-file", str(file), *server)
    assert (signed.returncode, file.stat().st_mode & 0o777) == (0, 0o600), signed.stderr
    shown = ("--token-file", str(file), *server)
    assert run("devices", *shown).returncode == 0
    claim = run("devices", "claim", *shown)
    assert (claim.returncode, "this is for the role operator" in claim.stderr) == (4, True)
    assert run("people", "role", "ada", "operator", "--why", "night shift", *here).returncode == 0
    assert _login("ada", PASSWORD, "--token-file", str(file), *server).returncode == 0
    assert run("devices", "claim", *shown).returncode == 0
    (listed,) = json.loads(run("people", "list", "--json", *here).stdout)
    assert (listed["name"], listed["role"], listed["has_password"]) == ("ada", "operator", True)
    assert run("people", "remove", "ada", "--why", "left", *here).returncode == 0
    assert json.loads(run("audit", "verify", "--json", *here).stdout)["faults"] == []
    rows = json.loads(run("audit", "list", "--json", *here).stdout)
    assert {row["what"]: row["who"] for row in rows}["claim_created"] == "ada"
    assert "at the server" in {row["what"]: row["who"] for row in rows}["person_removed"]
    assert run("devices", *server).returncode == 0, "nobody has an account any more"


def test_tokens_are_made_listed_and_revoked_and_logout_removes_the_file(cloud: ServeProcess, tmp_path: Path) -> None:
    here, server = ("--data-dir", str(cloud.data_dir)), ("--server", cloud.addresses["url"])
    link = json.loads(run("people", "add", "ada", "--role", "operator", "--json", *here).stdout)["link"]
    assert _join(cloud.addresses["url"] + "/join?" + urlsplit(link).query).status_code == 303
    file = tmp_path / "token"
    assert _login("ada", PASSWORD, "--token-file", str(file), *server).returncode == 0
    shown = ("--token-file", str(file), *server)
    made = run("tokens", "create", "nightly report", "--role", "viewer", *shown)
    small = tmp_path / "small"
    small.write_text(made.stdout)
    looking = ("--token-file", str(small), *server)
    assert run("devices", *looking).returncode == 0
    assert run("devices", "claim", *looking).returncode == 4
    listed = json.loads(run("tokens", "list", "--json", *shown).stdout)
    number = next(one["id"] for one in listed if one["label"] == "nightly report")
    assert "nightly report" in run("tokens", "list", *shown).stdout
    assert run("tokens", "revoke", number, *shown).returncode == 0
    assert run("devices", *looking).returncode == 4
    assert run("logout", *shown).returncode == 0
    assert not file.exists()
    again = run("people", "invite", "ada", *here)
    assert (again.returncode, again.stdout.startswith("http://127.0.0.1:8440/join?invite=")) == (0, True)


def test_accounts_of_nothing_are_a_clear_error(tmp_path: Path) -> None:
    nothing = run("people", "list", "--data-dir", str(tmp_path))
    assert (nothing.returncode, "no control plane has kept anything" in nothing.stderr) == (4, True)


@pytest.mark.parametrize(
    "command",
    [
        ("people", "list"),
        ("people", "add"),
        ("people", "invite"),
        ("people", "role"),
        ("people", "remove"),
        ("login",),
        ("logout",),
        ("tokens", "list"),
        ("tokens", "create"),
        ("tokens", "revoke"),
    ],
)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"], prog_name="lineside-cloud")
    assert (shown.exit_code, "Example: lineside-cloud" in shown.stdout) == (0, True)
