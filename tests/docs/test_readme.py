"""The README's commands do what it says: each session is typed into a real shell, in this checkout."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import blocks, sessions

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
SCRATCH = tuple(Path("/tmp") / f"lineside-{name}" for name in ("glass", "box", "voice", "plant"))
PORTS = {"operate": 8440, "phone": 8470}
EXPECTED = {
    "infer": ["20 files:", "phone_glass 1.1.0"],
    "device": ["box-1", "phone_glass 1.0.0", "decisions"],
    "phone": ["“unknown” accept", " · device, ", "“He was not an ", " · server, "],
    "operate": [
        "box-1",
        "phone_glass 1.1.0 is published",
        "stage 1 of 4",
        "gate failed: deferred in ",
        "rolled back: phone_glass 1.1.1 is taken back: deferred in ",
        "main: phone_glass 1.0.0",
        "rollout_rolled_back",
    ],
}
LONGEST_S = 400
"""Half a minute and more on a machine of its own; others may have most of this one."""


def test_every_block_says_whether_it_is_run() -> None:
    assert [block.commands for block in blocks(README) if not block.say] == []


def test_every_session_is_expected_to_show_something() -> None:
    assert set(sessions(README)) == set(EXPECTED)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_session_of_the_readme_works_as_written(name: str) -> None:
    if name in PORTS:
        _free(PORTS[name])
    for folder in SCRATCH:
        shutil.rmtree(folder, ignore_errors=True)
    # The shell finds this checkout's commands as the README's own set-up leaves them.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = sessions(README)[name].replace(". .venv/bin/activate", "true")
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PATH": path, "COLUMNS": "200"},
        start_new_session=True,
    )
    try:
        shown, _ = shell.communicate(f"{script}\nkill $(jobs -p) 2>/dev/null || true\nwait\n", timeout=LONGEST_S)
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
    for words in EXPECTED[name]:
        assert words in shown, shown
    assert "Traceback" not in shown
    assert shell.returncode == 0, shown
    for folder in SCRATCH:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("program", ["edge", "cloud", "export", "benchmarks"])
def test_help_opens_for_every_program(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", program, "--help"], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_pictures_and_links_of_the_readme_are_there() -> None:
    text = README.read_text()
    targets = [part.split(")")[0] for part in text.split("](")[1:]]
    local = [target for target in targets if not target.startswith("http")]
    assert local, "the README links to nothing"
    assert [target for target in local if not (ROOT / target).exists()] == []


def _free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            pytest.fail(f"port {port} is taken by another program: stop it, the README's commands need it")
