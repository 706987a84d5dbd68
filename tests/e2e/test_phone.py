"""A phone and its prediction server from the two samples, two real daemons: a sentence in a WAV comes back as text."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import pytest

from edge.clock import SystemClock
from edge.sound import encode_wav
from edge.store import Store
from edge.wire.rows import DecisionRow, EventRow, TelemetryRow
from models.sentences.example import RATE_HZ, wav
from tests.brokers import free_port
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
SAMPLES, MODELS = ROOT / "firmware_configs" / "samples", ROOT / "models"
SAID = "he was not an ill disposed young man"
RECOGNISERS = {"sentences": "faster_whisper", "sentences_small": "pocketsphinx"}
LINE = re.compile(r"main: (?P<length>[\d.]+) s (?P<said>“.*?”|nothing) (?P<what>.*?) · (?P<where>\w+), (?P<ms>\d+) ms")
START_S = 90.0


@dataclass(frozen=True)
class Server:
    """A prediction server that runs."""

    folder: Path
    url: str
    model: str

    def decisions(self) -> list[DecisionRow]:
        return [row for row in rows(self.folder) if isinstance(row, DecisionRow)]


@pytest.fixture(scope="module", params=sorted(RECOGNISERS))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model: str = request.param
    if find_spec(RECOGNISERS[model]) is None:
        pytest.skip(f"{model} needs the package {RECOGNISERS[model]}")
    folder, port = tmp_path_factory.mktemp(model), free_port()
    text = (SAMPLES / "recogniser.toml").read_text().replace("port = 8470", f"port = {port}")
    text = text.replace('model = "sentences"', f'model = "{model}"').replace("sentences-1.0.0", f"{model}-1.0.0")
    (folder / "recogniser.toml").write_text(text)
    (folder / f"{model}-1.0.0.lsb").symlink_to(MODELS / "sentences" / f"{model}-1.0.0.lsb")
    with running(folder, "recogniser.toml"):
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: ready(url), START_S, "the prediction server")
        yield Server(folder, url, model)


@pytest.fixture
def phone(tmp_path: Path, server: Server) -> Path:
    """The phone of the sample, patient with a busy machine."""
    text = (SAMPLES / "phone.toml").read_text().replace("http://127.0.0.1:8470", server.url)
    text = text.replace("timeout_ms = 5000", "timeout_ms = 30000")
    (tmp_path / "phone.toml").write_text(text)
    (tmp_path / "spoken_digits-1.2.0.lsb").symlink_to(MODELS / "spoken_digits" / "spoken_digits-1.2.0.lsb")
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "sentence.wav").write_bytes(wav())
    return tmp_path


def test_sentence_in_a_folder_comes_back_as_text_from_the_server(phone: Path, server: Server) -> None:
    quiet = np.random.default_rng(3).normal(0, 1e-4, RATE_HZ).astype(np.float32)
    (phone / "inbox" / "nobody.wav").write_bytes(encode_wav(quiet, RATE_HZ))
    shown = heard_by(phone)
    at_the_device, at_the_server = [LINE.search(line) for line in shown]
    assert at_the_device is not None and at_the_server is not None, shown
    assert (at_the_device["where"], at_the_server["where"]) == ("device", "server"), shown
    assert words_in_common(at_the_server["said"]) >= 0.5, shown
    assert 190 <= int(at_the_device["ms"]) < int(at_the_server["ms"]), "the wait that says that speech is over counts"

    events = {row.name: row for row in rows(phone) if isinstance(row, EventRow)}
    (decision,) = [row for row in rows(phone) if isinstance(row, DecisionRow)]
    answer, understood = events["server_answered"].data, server.decisions()[-1]
    assert (answer["decision_seq"], answer["text"]) == (decision.seq, understood.text)
    assert answer["digest"] == understood.input.digest, "the server heard what the phone had cut out"
    assert answer["bundle"]["name"] == server.model
    assert {"level_dbfs", "clipping", "duration_s", "speech_share"} <= decision.metrics.keys()
    assert 0.5 < decision.metrics["speech_share"] < 0.95, "pre-roll and hang-over are quiet"
    (counted,) = [row for row in rows(phone) if isinstance(row, TelemetryRow) and row.counts["decisions"]]
    assert counted.histograms["speech_share"].total == 1
    assert events["nothing_heard"].data["name"] == "nobody.wav"


def test_single_file_is_heard_too(phone: Path, server: Server) -> None:
    text = (phone / "phone.toml").read_text()
    (phone / "phone.toml").write_text(text.replace('path = "inbox"', 'path = "inbox/sentence.wav"'))
    *_, last = heard_by(phone)
    line = LINE.search(last)
    assert line is not None and line["where"] == "server" and words_in_common(line["said"]) >= 0.5, last


def test_check_of_both_samples_is_all_ok(phone: Path, server: Server) -> None:
    done = edge("check", "--config", "phone.toml", cwd=phone)
    assert done.returncode == 0, done.stdout
    assert "main: server: " in done.stdout and "all ok" in done.stdout


def heard_by(phone: Path) -> list[str]:
    """Run the phone until it has heard all, and return what it showed."""
    done = edge("run", "--config", "phone.toml", "--drain", cwd=phone)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def edge(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edge", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=START_S, check=False)


@contextmanager
def running(folder: Path, config: str) -> Iterator[None]:
    """A daemon while the block runs."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge", "run", "--config", config], cwd=folder, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 0, (folder / "log").read_text()


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def rows(folder: Path) -> list[object]:
    with Store.open_read_only(folder / "data" / "lineside.sqlite", clock=SystemClock()) as store:
        return list(store.rows())


def words_in_common(said: str) -> float:
    """Return the share of what was really said that was understood."""
    wanted = SAID.split()
    understood = re.findall(r"[a-z]+", said.lower())
    return sum(word in understood for word in wanted) / len(wanted)
