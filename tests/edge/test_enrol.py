"""Enrolment against a real HTTP server that checks the proof, and against everything that goes wrong."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.clock import SystemClock
from edge.enrol import enrol
from edge.errors import ConfigError, LinkError
from edge.identity import Identity, device_key, load_identity, public_key_hex
from edge.wire.http import BrokerAddress, EnrolAnswer, EnrolRequest, enrol_statement
from tests.badlink import BadLink
from tests.webserver import Request, WebServer

CLAIM = "claim-0123456789abcdef"
BROKER = BrokerAddress(host="127.0.0.1", port=1883, username="box-1", password="p")


class Fleet:
    """The control plane's rules: a claim belongs to the first key that shows it."""

    def __init__(self, server: WebServer) -> None:
        self.server = server
        self.keys: dict[str, str] = {}
        server.behaviour.answer = self.answer

    def answer(self, request: Request) -> tuple[int, bytes]:
        asked = EnrolRequest.model_validate_json(request.body)
        statement = enrol_statement(asked.device, asked.claim, asked.public_key)
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(asked.public_key)).verify(
                bytes.fromhex(asked.proof), statement
            )
        except InvalidSignature:
            return 400, b"the proof is wrong"
        if self.keys.setdefault(asked.claim, asked.public_key) != asked.public_key:
            return 403, b"this claim was used by another device"
        answer = EnrolAnswer(device=asked.device, broker=BROKER, token=f"token-{asked.device}", server_time_ms=1)
        return 200, answer.model_dump_json().encode()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with WebServer() as server:
        yield Fleet(server)


def ask(fleet: Fleet, folder: Path, *, url: str | None = None, device: str = "box-1", claim: str = CLAIM) -> Identity:
    return enrol(
        url or fleet.server.url,
        device,
        claim,
        profile="generic",
        site="hall-1",
        models=["phone_glass"],
        identity_dir=folder,
        clock=SystemClock(),
    )


def test_enrolled_device_keeps_key_and_credentials_to_itself(fleet: Fleet, tmp_path: Path) -> None:
    identity = ask(fleet, tmp_path / "identity")
    assert identity.broker == BROKER
    assert identity.token == "token-box-1"
    assert identity.public_key == public_key_hex(device_key(tmp_path / "identity"))
    assert load_identity(tmp_path / "identity") == identity
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "identity").iterdir()} == {
        "device.key": 0o600,
        "identity.json": 0o600,
        "tls.key": 0o600,
    }
    key = (tmp_path / "identity" / "device.key").read_text().strip()
    tls_key = (tmp_path / "identity" / "tls.key").read_text().splitlines()[1]
    assert not any(secret.encode() in request.body for request in fleet.server.requests for secret in (key, tls_key))


def test_enrolled_device_does_not_ask_again(fleet: Fleet, tmp_path: Path) -> None:
    ask(fleet, tmp_path)
    ask(fleet, tmp_path)
    assert len(fleet.server.requests) == 1


def test_answer_lost_by_a_power_cut_is_asked_for_again_with_the_same_key(fleet: Fleet, tmp_path: Path) -> None:
    first = ask(fleet, tmp_path)
    (tmp_path / "identity.json").unlink()
    again = ask(fleet, tmp_path)
    assert again.public_key == first.public_key
    assert again.token == first.token


def test_claim_that_another_device_used_is_refused_with_a_hint(fleet: Fleet, tmp_path: Path) -> None:
    ask(fleet, tmp_path / "one")
    with pytest.raises(ConfigError, match="used by another device") as caught:
        ask(fleet, tmp_path / "two")
    assert "new claim" in caught.value.hint
    assert load_identity(tmp_path / "two") is None


def test_claim_that_is_missing_is_refused_without_asking(fleet: Fleet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="claim"):
        ask(fleet, tmp_path, claim="")
    assert not fleet.server.requests


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_busy_control_plane_is_a_matter_of_the_link(fleet: Fleet, tmp_path: Path, status: int) -> None:
    fleet.server.behaviour.status = [status]
    with pytest.raises(LinkError) as caught:
        ask(fleet, tmp_path)
    assert caught.value.retry
    ask(fleet, tmp_path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_nobody_there_is_a_matter_of_the_link(fleet: Fleet, tmp_path: Path, url: str) -> None:
    with pytest.raises(LinkError):
        ask(fleet, tmp_path, url=url)


@pytest.mark.parametrize("url", ["", "not an address", "http://", "ftp://127.0.0.1/x"])
def test_address_that_is_none_is_a_matter_of_the_config(fleet: Fleet, tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"cloud\.url"):
        ask(fleet, tmp_path, url=url or " ")


@pytest.mark.parametrize("body", [b"", b"<html>hotel portal</html>", b"{}", b"\xff" * 100])
def test_answer_of_something_else_is_refused(fleet: Fleet, tmp_path: Path, body: bytes) -> None:
    fleet.server.behaviour.answer = lambda request: (200, body)
    with pytest.raises(ConfigError, match="expected an answer to an enrolment") as caught:
        ask(fleet, tmp_path)
    assert "control plane" in caught.value.hint


def test_endless_answer_is_cut(fleet: Fleet, tmp_path: Path) -> None:
    fleet.server.behaviour.answer = lambda request: (200, b"x" * 5_000_000)
    with pytest.raises(ConfigError):
        ask(fleet, tmp_path)


def test_answer_for_another_device_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    answer = EnrolAnswer(device="box-9", broker=BROKER, token="t", server_time_ms=1).model_dump_json().encode()
    fleet.server.behaviour.answer = lambda request: (200, answer)
    with pytest.raises(ConfigError, match="box-9"):
        ask(fleet, tmp_path)


def test_other_control_plane_in_the_config_enrols_there(fleet: Fleet, tmp_path: Path) -> None:
    ask(fleet, tmp_path)
    with WebServer() as other:
        moved = ask(Fleet(other), tmp_path)
        assert moved.cloud_url == other.url
        assert len(other.requests) == 1


def test_line_cut_in_the_answer_then_again_succeeds(fleet: Fleet, tmp_path: Path) -> None:
    with BadLink(fleet.server.port) as bad:
        url = f"http://127.0.0.1:{bad.port}"
        bad.cut_after_bytes = 60
        with pytest.raises(LinkError):
            ask(fleet, tmp_path, url=url)
        assert ask(fleet, tmp_path, url=url).token == "token-box-1"


@pytest.mark.parametrize(
    ("name", "content"), [("device.key", "not hex"), ("tls.key", "no PEM"), ("identity.json", '{"value": 1}')]
)
def test_damaged_identity_says_what_to_do(fleet: Fleet, tmp_path: Path, name: str, content: str) -> None:
    ask(fleet, tmp_path)
    if name.endswith(".key"):
        (tmp_path / "identity.json").unlink()
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=name) as caught:
        ask(fleet, tmp_path)
    assert "enrol" in caught.value.hint


KILLED = """
import sys
from pathlib import Path
from edge.clock import SystemClock
from edge.enrol import enrol
print("begun", flush=True)
rest = {"profile": "p", "site": "s", "models": [], "clock": SystemClock()}
enrol(sys.argv[1], "box-1", sys.argv[2], identity_dir=Path(sys.argv[3]), **rest)
"""


def test_killed_at_random_moments_is_enrolled_in_the_end_with_one_key(fleet: Fleet, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with BadLink(fleet.server.port) as bad:
        bad.delay_s = 0.02
        url = f"http://127.0.0.1:{bad.port}"
        for _ in range(12):
            command = [sys.executable, "-c", KILLED, url, CLAIM, str(tmp_path)]
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            assert child.stdout is not None
            child.stdout.readline()
            timer = threading.Timer(rng.uniform(0.0, 0.12), os.kill, [child.pid, signal.SIGKILL])
            timer.start()
            child.wait()
            timer.cancel()
            child.stdout.close()
            if (tmp_path / "identity.json").exists():
                break
        identity = ask(fleet, tmp_path, url=url)
    assert fleet.keys == {CLAIM: identity.public_key}
    assert json.loads((tmp_path / "identity.json").read_bytes())["value"]["token"] == "token-box-1"
