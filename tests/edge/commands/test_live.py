"""What a person sees who runs a phone: the real command in a real terminal, asking a real second daemon."""

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from edge.results import MAX_SAID, of_answer, of_decision
from edge.wire.rows import EventRow
from tests.edge.command import edge
from tests.edge.commands.test_infer import picture
from tests.edge.serverproc import Server
from tests.edge.sources.test_audio_file import RATE_HZ, put, silence
from tests.rows import decision

BUNDLE = Path(__file__).parents[3] / "models" / "spoken_digits" / "spoken_digits-1.2.0.lsb"
PHONE = """
[device]
name = "phone-1"
[station.main]
model = "spoken_digits"
bundle = "model.lsb"
isolation = "inline"
audit_share = 0
actuator = {{ kind = "none" }}
[station.main.source]
kind = "audio_file"
path = "said.wav"
watch = false
real_time = {real_time}
segments = {{ kind = "energy", hang_over_ms = 200 }}
[station.main.ask]
url = "{url}"
"""
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("heard") / "server"
    with Server(folder, BUNDLE.read_bytes(), "spoken_digits") as made:
        yield made


def phone(folder: Path, url: str, *, real_time: bool) -> Path:
    """A phone that hears noise, which it knows for no speech, and a rising tone, of which it is unsure."""
    (folder / "model.lsb").write_bytes(BUNDLE.read_bytes())
    (folder / "phone.toml").write_text(PHONE.format(url=url, real_time=str(real_time).lower()))
    times = np.arange(round(0.6 * RATE_HZ)) / RATE_HZ
    rising = (0.3 * np.sin(2 * np.pi * (600 + 300 * times) * times)).astype(np.float32)
    noise = np.random.default_rng(4).normal(0, 0.1, len(times)).astype(np.float32)
    put(folder / "said.wav", np.concatenate([silence(0.5), noise, silence(0.6), rising, silence(0.6)]))
    return folder


def on_a_screen(folder: Path, log: IO[bytes] | None = None) -> str:
    """Run the phone in a terminal until it has heard all, and return what stood there."""
    return CONTROL.sub("", in_a_terminal(folder, log=log).decode())


def in_a_terminal(
    folder: Path, enough: Callable[[bytes], bool] = lambda _shown: False, log: IO[bytes] | None = None
) -> bytes:
    """Run the phone in a terminal until it ends, and return all that was written there.

    Args:
        folder: of the phone.
        enough: when what was written so far is, it is interrupted.
        log: where standard error goes; to the terminal without it.
    """
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edge", "run", "-c", "phone.toml", "--drain"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "160", "LINES": "40"}
    process = subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=log or theirs, env=environment)
    os.close(theirs)
    shown, interrupted = b"", False
    try:
        while part := _read(ours):
            shown += part
            if enough(shown) and not interrupted:
                process.send_signal(signal.SIGINT)
                interrupted = True
        assert process.wait(30) == 0, shown
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return shown


def test_terminal_shows_level_speech_and_what_was_understood_where_and_how_fast(tmp_path: Path, server: Server) -> None:
    screen = on_a_screen(phone(tmp_path, server.url, real_time=True))
    assert re.search(r"main +[━╸╺ ]+ +-\d+ dBFS +no speech", screen), screen
    assert re.search(r"main +[━╸╺ ]+ +-\d+ dBFS +speech", screen), screen
    results = re.findall(r"main: (\d\.\d\d) s “(\w+)” (.*?) · (device|server), (\d+) ms", screen)
    assert [result[3] for result in results] == ["device", "device", "server"], screen
    assert results[0][1] == "silence" and "accept" in results[0][2]
    assert "defer (unsure)" in results[1][2]
    assert all(0.5 < float(result[0]) < 1.5 for result in results)
    assert 200 <= int(results[0][4]) < int(results[2][4]), "from the end of speech, hang-over included"
    assert "daemon started" in screen and "phone-1: stopped" in screen, "what is logged stands above"


def test_log_that_goes_elsewhere_goes_there_also_from_a_terminal(tmp_path: Path, server: Server) -> None:
    with (tmp_path / "log").open("wb") as log:
        screen = on_a_screen(phone(tmp_path, server.url, real_time=False), log)
    assert "daemon started" in (tmp_path / "log").read_text() and "daemon started" not in screen
    assert "· server" in screen


def test_interrupt_ends_it_and_leaves_the_terminal_as_it_was(tmp_path: Path, server: Server) -> None:
    folder = phone(tmp_path, server.url, real_time=True)
    (folder / "phone.toml").write_text((folder / "phone.toml").read_text().replace("watch = false", "watch = true"))
    shown = in_a_terminal(folder, lambda shown: b"silence" in shown)
    assert b"stopped" in shown and shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l"), "the cursor is back"


def test_without_a_terminal_each_result_is_one_plain_line(tmp_path: Path, server: Server) -> None:
    done = edge("run", "-c", "phone.toml", "--drain", cwd=phone(tmp_path, server.url, real_time=False))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and "\x1b" not in done.stdout
    assert [line.split(" · ")[1].split(",")[0] for line in lines] == ["device", "device", "server"]


def test_told_not_to_it_shows_nothing(tmp_path: Path, server: Server) -> None:
    done = edge("run", "-c", "phone.toml", "--drain", "--no-live", cwd=phone(tmp_path, server.url, real_time=False))
    assert (done.returncode, done.stdout) == (0, "")


def test_output_that_nobody_reads_any_more_holds_nothing_up(tmp_path: Path, server: Server) -> None:
    folder = phone(tmp_path, server.url, real_time=True)
    command = [sys.executable, "-m", "edge", "run", "-c", "phone.toml", "--drain"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 0
    assert len(edge("log", "-c", "phone.toml", cwd=folder).stdout.splitlines()) == 2


def test_box_with_pictures_is_shown_when_asked(tmp_path: Path, server: Server) -> None:
    (tmp_path / "glass.lsb").write_bytes((server.folder / "model.lsb").read_bytes())
    text = PHONE.format(url=server.url, real_time="false")
    source = text[text.index("[station.main.source]") : text.index("[station.main.ask]")]
    folder = '[station.main.source]\nkind = "folder"\npath = "inbox"\nwatch = false\n'
    (tmp_path / "box.toml").write_text(text.replace(source, folder).replace("model.lsb", "glass.lsb"))
    picture(tmp_path / "inbox" / "part.png", 250)
    quiet = edge("run", "-c", "box.toml", "--drain", cwd=tmp_path)
    assert (quiet.returncode, quiet.stdout) == (0, "")
    picture(tmp_path / "inbox" / "other.png", 250)
    shown = edge("run", "-c", "box.toml", "--drain", "--live", cwd=tmp_path)
    assert "main: other.png nothing defer" in shown.stdout


def test_words_that_came_from_elsewhere_steer_no_terminal() -> None:
    row = decision("a\x1b[2J.wav", label="7", verdict="defer", reason="unsure")
    answer = EventRow(
        seq=2,
        at_ms=1,
        boot_id="b",
        name="server_answered",
        station="main",
        data={"verdict": "accept", "text": "x\x1b]0;mine\x07" + "y" * 500, "latency_ms": {"total": 3.0}},
    )
    found = of_answer(answer, row)
    assert found is not None and found.said is not None
    assert found.said.startswith("x ]0;mine y") and len(found.said) == MAX_SAID + 1
    assert "\x1b" not in of_decision(row).words() + found.words()


@pytest.mark.parametrize("data", [{}, {"verdict": 7, "latency_ms": None, "confidence": "high", "text": ["a"]}])
def test_answer_that_says_little_is_shown_all_the_same(data: dict[str, object]) -> None:
    event = EventRow(seq=2, at_ms=1, boot_id="b", name="server_answered", data=data)
    found = of_answer(event, None)
    assert found is not None and found.words().endswith("nothing ? · server, 0 ms")
    assert of_answer(event.model_copy(update={"name": "drift_raised"}), None) is None


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""  # the other end is closed: so a terminal ends


def test_recogniser_that_understood_nothing_is_not_shown_with_its_label() -> None:
    row = decision("a.wav", verdict="defer", reason="unsure", label="unclear", text="")
    assert "nothing defer (unsure)" in of_decision(row).words()
    data = {"decision_seq": 1, "verdict": "accept", "label": "understood", "text": "stop the line"}
    event = EventRow(seq=2, at_ms=1, boot_id="b", name="server_answered", station="s", data=data)
    found = of_answer(event, None)
    assert found is not None and found.said == "stop the line"
    nothing = of_answer(event.model_copy(update={"data": {**data, "text": ""}}), None)
    assert nothing is not None and "nothing accept" in nothing.words()
