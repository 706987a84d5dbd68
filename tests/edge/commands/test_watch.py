"""`status --watch` of real devices: what it shows, what it says of a daemon that is silent, and how it ends."""

import io
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from edge.commands.watch import look
from edge.commands.watch import run as watch
from edge.config import load_config
from edge.linkstate import LinkBook
from edge.station import store_path
from edge.store import Store
from tests.bundles import bundle_bytes
from tests.clocks import HeldClock
from tests.edge.command import edge
from tests.edge.commands.test_check import CLOUD, CONFIG
from tests.edge.commands.test_infer import picture
from tests.edge.commands.test_live import CONTROL


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A device that has decided one picture."""
    (tmp_path / "glass.lsb").write_bytes(bundle_bytes())
    (tmp_path / "box.toml").write_text(CONFIG)
    picture(tmp_path / "inbox" / "1.png", 250)
    assert edge("run", "-c", "box.toml", "--drain", cwd=tmp_path).returncode == 0
    return tmp_path


def shown(folder: Path, clock: HeldClock | None = None) -> str:
    out = io.StringIO()
    console = Console(file=out, width=140)
    if clock is None:
        assert watch(folder / "box.toml", console=console, frames=1) == 0
    else:
        console.print(look(load_config(folder / "box.toml"), clock))
    return out.getvalue()


def test_what_was_decided_and_what_runs_is_shown(device: Path) -> None:
    text = shown(device)
    for word in ("box-1", "fresh", "partial", "pass 1", "1.png", "1.0.0:good", "works alone", "brightness 1.0.0"):
        assert word in text, text
    assert "no bundle" not in text, "what decided is said, also when it has ended"


def test_device_that_never_ran_says_so(tmp_path: Path) -> None:
    (tmp_path / "box.toml").write_text(CONFIG)
    assert "no record" in shown(tmp_path)


def test_record_that_is_being_made_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "box.toml").write_text(CONFIG)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lineside.sqlite").touch()
    assert "expected schema version" in shown(tmp_path)


def test_link_of_a_daemon_that_is_silent_is_unknown(device: Path) -> None:
    (device / "box.toml").write_text(CONFIG + CLOUD)
    config = load_config(device / "box.toml")
    with Store.open(store_path(config), clock=HeldClock()) as store:
        LinkBook(store, HeldClock()).note(None)
    assert "connected since" in shown(device) and "unknown" not in shown(device)
    later = HeldClock(4_000_000_000_000)
    text = shown(device, later)
    assert "STALE" in text and "link unknown, the daemon is silent; it was: connected since" in text


def test_it_ends_with_ctrl_c_and_leaves_the_terminal_as_it_was(device: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edge", "status", "--watch", "-c", "box.toml"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "24"}
    process = subprocess.Popen(command, cwd=device, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    screen = b""
    try:
        while b"1.png" not in screen:
            screen += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        while part := _read(ours):
            screen += part
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert screen.count(b"\x1b[?1049h") == screen.count(b"\x1b[?1049l") == 1, "the other screen is left again"
    assert screen.count(b"\x1b[?25h") >= 1, "the cursor is there again"
    assert "Traceback" not in CONTROL.sub("", screen.decode())


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""  # the other end is gone
