"""The prediction server with a real recogniser: the daemon's own program, a sentence over HTTP, its text back."""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import load
from edge.clock import SystemClock
from edge.sound import encode_wav
from edge.store import Store
from edge.wire.rows import DecisionRow, TelemetryRow
from tests.brokers import free_port
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "models" / "sentences" / "sentences-1.0.0.lsb"
RATE_HZ = 16_000
START_S, STOP_S = 60.0, 20.0


@dataclass
class Server:
    """A running daemon."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes]"

    def decide(self, wav: bytes, name: str) -> DecisionRow:
        """Post a sound and return the recorded decision."""
        url = f"http://127.0.0.1:{self.port}/v1/decide?name={name}"
        request = urllib.request.Request(url, data=wav, headers={"Content-Type": "audio/wav"})
        with urllib.request.urlopen(request, timeout=START_S) as answer:
            return DecisionRow.model_validate_json(answer.read())

    def rows(self) -> list[object]:
        with Store.open_read_only(self.folder / "data" / "lineside.sqlite", clock=SystemClock()) as store:
            return list(store.rows())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("recogniser")
    sample = (ROOT / "firmware_configs" / "samples" / "recogniser.toml").read_text()
    port = free_port()
    text = sample.replace("8470 }", f"{port} }}").replace("sentences-1.0.0.lsb", str(BUNDLE))
    text = text.replace("[station.main]", "[link]\ntelemetry_window_s = 1.0\n\n[station.main]")
    (folder / "recogniser.toml").write_text(text)
    with (folder / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge", "run", "--config", str(folder / "recogniser.toml")], stderr=log, stdout=log
        )
    started = Server(folder, port, process)
    try:
        wait_until(lambda: _answers(port), START_S, "the server to listen")
        yield started
    finally:
        process.terminate()
        process.wait(STOP_S)


def test_sentence_comes_back_as_text_and_stands_in_the_record(server: Server) -> None:
    decision = server.decide(_golden_wav(), "sentence-1")
    assert decision.text is not None and decision.text.lower().startswith("he was not")
    assert decision.verdict == "accept" and decision.label == "understood"
    recorded = [row for row in server.rows() if isinstance(row, DecisionRow) and row.input.name == "sentence-1"]
    assert [row.text for row in recorded] == [decision.text]
    assert decision.runtime is not None and decision.runtime.startswith("whisper")


def test_sound_without_speech_is_handed_over_and_counted(server: Server) -> None:
    quiet = np.zeros(RATE_HZ, np.float32)
    decision = server.decide(encode_wav(quiet, RATE_HZ), "nothing")
    assert (decision.verdict, decision.text) == ("defer", "")

    def counted() -> bool:
        counts = [row.counts for row in server.rows() if isinstance(row, TelemetryRow)]
        return sum(count.get("text.empty", 0) for count in counts) >= 1

    wait_until(counted, START_S, "telemetry that counts the empty text")


def _golden_wav() -> bytes:
    sound = np.asarray(load(BUNDLE).golden("whisper")[0][0], np.float32).ravel()
    return encode_wav(sound[: int(np.flatnonzero(sound)[-1]) + 1], RATE_HZ)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
