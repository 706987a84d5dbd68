"""A device whose clock is wrong learns the time from its control plane, and from nobody else."""

import base64
import hashlib
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cloud.authority import Authority
from edge.wire.http import claim_parts
from firmware_configs.device import clock

LATER = datetime(2045, 6, 1, tzinfo=UTC)
"""What the time is at the control plane: no certificate of its own is valid for this machine's clock."""
EPOCH_S = datetime(2045, 1, 1, tzinfo=UTC).timestamp()


class Plane:
    """A control plane that says what time it is."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.authority = Authority.open(folder, LATER)
        self.says = LATER
        self.pem = self.authority.pem
        own = folder / "server.pem"
        own.write_bytes(self.authority.make_server(["127.0.0.1"], LATER))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def claim(self) -> str:
        """A claim of this control plane."""
        der = ssl.PEM_cert_to_DER_cert(self.authority.pem)
        return f"token.{base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b'=').decode()}"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        plane = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(plane.pem.encode())

            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string(plane.says.timestamp() if timestamp is None else timestamp)

            def log_message(self, *_: object) -> None:
                return

        return Handler


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path / "authority")
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path, plane: Plane) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "box.toml").write_text(f'[cloud]\nclaim = "{plane.claim}"\nurl = "{plane.url}"\n')
    return folder


@pytest.fixture
def set_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """What the clock was set to; this machine's own stays as it is."""
    epoch = tmp_path / "clock-epoch"
    times: list[float] = []
    epoch.touch()
    os.utime(epoch, (EPOCH_S, EPOCH_S))
    monkeypatch.setattr(clock, "NOT_BEFORE", epoch)
    monkeypatch.setattr(clock, "BY_TIME_SERVER", tmp_path / "synchronized")
    monkeypatch.setattr(clock, "set_clock", times.append)
    return times


def run(home: Path) -> tuple[int, str]:
    told: list[str] = []
    return clock.main(home, told.append), " ".join(told)


def test_clock_that_is_years_behind_is_set_by_the_control_plane_of_the_claim(
    home: Path, set_to: list[float], plane: Plane
) -> None:
    code, told = run(home)
    assert (code, set_to) == (0, [LATER.timestamp()])
    assert "behind" in told
    assert claim_parts(plane.claim)[0] not in told


def test_clock_that_is_years_ahead_is_set_back(
    home: Path, set_to: list[float], plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: LATER.timestamp() + 10 * 365 * 86_400)
    code, told = run(home)
    assert (code, set_to) == (0, [LATER.timestamp()])
    assert "ahead" in told


def test_clock_after_enrolment_is_set_by_what_enrolment_left(home: Path, set_to: list[float], plane: Plane) -> None:
    (home / "box.toml").write_text(f'[cloud]\nurl = "{plane.url}"\n')
    (home / clock.PINNED).parent.mkdir(parents=True)
    (home / clock.PINNED).write_text(plane.authority.pem)
    assert (run(home)[0], set_to) == (0, [LATER.timestamp()])


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (LATER + timedelta(days=91), "its certificate"),
        (LATER - timedelta(days=30), "its certificate"),
        (datetime(2044, 12, 31, tzinfo=UTC), "this system"),
    ],
)
def test_time_at_which_the_certificate_or_the_image_is_not_valid_is_not_believed(
    home: Path, set_to: list[float], plane: Plane, says: datetime, why: str
) -> None:
    plane.says = says
    code, told = run(home)
    assert (code, set_to) == (1, [])
    assert why in told


def test_time_of_another_control_plane_is_not_believed(
    home: Path, set_to: list[float], plane: Plane, tmp_path: Path
) -> None:
    other = Plane(tmp_path / "other")
    (home / "box.toml").write_text(f'[cloud]\nclaim = "{plane.claim}"\nurl = "{other.url}"\n')
    try:
        assert run(home)[0] == 1
        other.pem = plane.authority.pem  # it shows the right one, and cannot speak for it
        code, told = run(home)
    finally:
        other.close()
    assert (code, set_to) == (1, [])
    assert "verify failed" in told


def test_clock_that_a_time_server_has_set_or_that_is_right_is_left_alone(
    home: Path, set_to: list[float], plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: LATER.timestamp() + 2)
    assert run(home) == (0, "")
    monkeypatch.undo()
    synchronized = home / "synchronized"
    synchronized.touch()
    monkeypatch.setattr(clock, "BY_TIME_SERVER", synchronized)
    plane.close()
    assert run(home) == (0, "")
    assert set_to == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda url: url.replace("https", "http"), "HTTPS"),
        (lambda _url: "https://127.0.0.1:1", "refused"),
    ],
)
def test_control_plane_that_cannot_be_asked_safely_leaves_the_clock(
    home: Path, set_to: list[float], plane: Plane, change: Callable[[str], str], why: str
) -> None:
    with pytest.raises((clock.UnknownError, OSError), match=why):
        clock.told_time(urlsplit(change(plane.url)), None, claim_parts(plane.claim)[1], EPOCH_S)
    assert set_to == []
