"""`check` of real devices: what is fine, what is not, and what to do."""

import re
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edge.clock import SystemClock
from edge.store import Store
from tests.bundles import bundle_bytes
from tests.edge.command import edge
from tests.edge.commands.test_infer import picture

CONFIG = """
[device]
name = "box-1"
[station.main]
model = "brightness"
bundle = "glass.lsb"
audit_share = 0
source = { kind = "folder", path = "inbox", watch = false }
"""
CLOUD = """
[cloud]
url = "http://127.0.0.1:9"
"""


@pytest.fixture
def device(tmp_path: Path) -> Path:
    (tmp_path / "glass.lsb").write_bytes(bundle_bytes())
    (tmp_path / "box.toml").write_text(CONFIG)
    picture(tmp_path / "inbox" / "1.png", 250)
    return tmp_path


def test_device_that_has_all_it_needs_is_all_ok(device: Path) -> None:
    result = edge("check", "-c", "box.toml", cwd=device)
    assert result.returncode == 0, result.stdout
    assert result.stdout.splitlines()[-1] == "all ok"
    assert "gives its golden outputs" in result.stdout
    assert "main: source: folder: 1.png" in result.stdout


def test_bundle_without_features_for_a_station_that_keeps_nothing_else_is_not_ok(device: Path) -> None:
    (device / "box.toml").write_text(CONFIG.replace("audit_share", 'keep = "features"\naudit_share'))
    result = edge("check", "-c", "box.toml", cwd=device)
    assert result.returncode == 1
    assert "but no features" in result.stdout and 'keep = "features" keeps nothing with it' in result.stdout


def test_sound_without_consent_is_said(device: Path) -> None:
    assert "no consent" not in edge("check", "-c", "box.toml", cwd=device).stdout
    (device / "box.toml").write_text(CONFIG.replace("audit_share", "sound_consent = false\naudit_share"))
    assert "main: sound: no consent" in edge("check", "-c", "box.toml", cwd=device).stdout


def test_network_that_runs_within_the_daemon_is_said(device: Path) -> None:
    assert "isolation" not in edge("check", "-c", "box.toml", cwd=device).stdout
    (device / "box.toml").write_text(CONFIG.replace("audit_share", 'isolation = "inline"\naudit_share'))
    result = edge("check", "-c", "box.toml", cwd=device)
    assert result.returncode == 0
    assert "main: isolation: inline: a network that crashes ends the daemon" in result.stdout
    assert 'isolation = "process" contains all three' in result.stdout


def test_check_decides_nothing(device: Path) -> None:
    edge("check", "-c", "box.toml", cwd=device)
    assert not (device / "data" / "lineside.sqlite").exists()
    assert edge("run", "-c", "box.toml", "--drain", cwd=device).returncode == 0
    assert "1 rows" not in edge("check", "-c", "box.toml", cwd=device).stdout
    assert len(edge("log", "-c", "box.toml", cwd=device).stdout.splitlines()) == 1


def test_everything_that_is_missing_is_named_with_what_to_do(device: Path) -> None:
    (device / "glass.lsb").unlink()
    (device / "inbox" / "1.png").unlink()
    (device / "inbox").rmdir()
    (device / "box.toml").write_text(CONFIG + CLOUD)
    result = edge("check", "-c", "box.toml", cwd=device)
    assert result.returncode == 1
    bad = [line for line in result.stdout.splitlines() if line.startswith("NOT OK")]
    assert [line.split("  ")[1].rsplit(": ", 1)[0].split(": /")[0].split(": http")[0] for line in bad] == [
        "main: bundle",
        "main: source",
        "control plane",
        "enrolment",
    ]
    assert result.stdout.count("→") == len(bad)


def test_picture_that_cannot_be_read_is_told(device: Path) -> None:
    (device / "inbox" / "1.png").write_bytes(b"rubbish")
    result = edge("check", "-c", "box.toml", cwd=device)
    assert result.returncode == 1
    assert "NOT OK  main: source: folder: 1.png" in result.stdout


class Cloud(BaseHTTPRequestHandler):
    """A control plane of which only the clock is of interest."""

    ahead_s = 0.0
    status = 200

    def do_GET(self) -> None:
        self.send_response_only(self.status)
        self.send_header("Date", formatdate(time.time() + self.ahead_s, usegmt=True))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.mark.parametrize(
    ("ahead_s", "status", "line"),
    [
        (0.0, 200, r"ok      control plane: http://\S+ answers; the clock here is [01] s"),
        (3600.0, 200, r"NOT OK  control plane: http://\S+ answers; the clock here is (3600|3599) s behind its own"),
        (-3600.0, 200, r"NOT OK  control plane: .* s ahead of its own"),
        (0.0, 404, r"NOT OK  control plane: http://\S+ answers 404"),
    ],
)
def test_clock_is_compared_with_that_of_the_control_plane(device: Path, ahead_s: float, status: int, line: str) -> None:
    handler = type("Off", (Cloud,), {"ahead_s": ahead_s, "status": status})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (device / "box.toml").write_text(CONFIG + CLOUD.replace(":9", f":{server.server_port}"))
        told = edge("check", "-c", "box.toml", cwd=device).stdout
        server.shutdown()
    assert re.search(line, told), told


def test_port_of_a_daemon_that_runs_is_no_fault(device: Path) -> None:
    (device / "box.toml").write_text(CONFIG.replace('"folder", path = "inbox", watch = false', '"http", port = 0'))
    assert "main: source: http: opens" in edge("check", "-c", "box.toml", cwd=device).stdout
    with Store.open(device / "data" / "lineside.sqlite", clock=SystemClock()):
        result = edge("check", "-c", "box.toml", cwd=device)
    assert "–       main: source: http: the daemon that runs has it" in result.stdout
    assert result.returncode == 0


def test_mistakes_of_the_config_stand_with_their_lines(device: Path) -> None:
    (device / "box.toml").write_text(CONFIG.replace("audit_share = 0", "audit_shar = 0\nthreads = 99"))
    result = edge("check", "-c", "box.toml", cwd=device)
    assert result.returncode == 1
    assert "line 7: station.main.audit_shar: unknown key; did you mean 'audit_share'?" in result.stdout
    assert "line 8: station.main.threads" in result.stdout
