"""Every recogniser of speech, in this process and in a child, keeps what its bundle and the others promise."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge import recognised
from edge.bundle import Bundle, load
from edge.engines import EngineSettings, open_engine
from edge.errors import ConfigError, DeadlineError, ModelError
from edge.runtimes import open_session
from edge.runtimes.interface import Session
from edge.runtimes.isolated import IsolatedSession
from edge.runtimes.weights import read_note
from edge.wire.manifest import ModelFile

MODELS = Path(__file__).parents[2] / "models" / "sentences"
BUNDLES = {"whisper": "sentences-1.0.0.lsb", "pocketsphinx": "sentences_small-1.0.0.lsb"}
Open = Callable[[str, bytes, ModelFile], Session]


def _isolated(runtime: str, model: bytes, spec: ModelFile) -> Session:
    return IsolatedSession(runtime, model, spec, deadline_s=30, start_timeout_s=60)


OPENERS: dict[str, Open] = {"inline": open_session, "process": _isolated}


@dataclass(frozen=True)
class Opened:
    """A recogniser at work, with its bundle's golden example."""

    runtime: str
    bundle: Bundle
    spec: ModelFile
    session: Session

    @property
    def sound(self) -> NDArray[np.float32]:
        return np.asarray(self.bundle.golden(self.runtime)[0][:1], np.float32)

    def said(self, sound: NDArray[np.float32]) -> tuple[str, float]:
        """Return the text and the log-odds of having understood."""
        numbers = self.session.infer(sound)
        return recognised.text_of(numbers[2:]), float(numbers[1] - numbers[0])


@pytest.fixture(scope="module", params=[f"{name}-{how}" for name in BUNDLES for how in OPENERS])
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    name, how = request.param.split("-")
    bundle = load(MODELS / BUNDLES[name])
    spec, note = bundle.model(name)
    session = OPENERS[how](name, note, spec)
    yield Opened(name, bundle, spec, session)
    session.close()


def test_golden_sentence_is_understood_the_same_every_time(opened: Opened) -> None:
    texts = {opened.said(opened.sound)[0] for _ in range(3)}
    assert len(texts) == 1 and "young man" in texts.pop().lower()


def test_silence_is_no_text_and_not_understood(opened: Opened) -> None:
    assert opened.said(np.zeros(opened.spec.input.shape, np.float32)) == ("", -recognised.MOST_SURE)


def test_noise_is_never_called_understood_for_sure(opened: Opened) -> None:
    noise = np.random.default_rng(3).normal(0, 0.1, opened.spec.input.shape).astype(np.float32)
    noise[:, 48_000:] = 0
    text, odds = opened.said(noise)
    assert not text or odds < 3.0


def test_wrong_tensor_is_refused_and_the_next_one_served(opened: Opened) -> None:
    for wrong in (opened.sound[:, :-1], opened.sound.astype(np.float64)):
        with pytest.raises(ModelError, match=r"expected .* of shape .*, got .* of shape"):
            opened.session.infer(wrong)
    assert opened.said(opened.sound)[0]


@pytest.mark.parametrize("runtime", BUNDLES)
def test_bundle_opens_as_a_device_opens_it_and_replays_its_golden_text(runtime: str) -> None:
    engine = open_engine(load(MODELS / BUNDLES[runtime]), EngineSettings(isolation="inline"))
    assert engine.session.description.startswith(runtime)
    engine.session.close()
    with pytest.raises(ModelError, match="closed"):
        engine.session.infer(np.zeros(engine.spec.input.shape, np.float32))


@pytest.mark.parametrize("runtime", BUNDLES)
def test_weights_that_are_not_those_of_the_bundle_are_refused_before_they_are_parsed(runtime: str) -> None:
    spec, note = load(MODELS / BUNDLES[runtime]).model(runtime)
    values = json.loads(note)
    values["files"][max(values["files"])] = "0" * 64
    with pytest.raises(ModelError, match=r"digest is .* the bundle says 000000000000"):
        open_session(runtime, json.dumps(values).encode(), spec)


@pytest.mark.parametrize("runtime", BUNDLES)
def test_package_that_is_not_installed_is_named(runtime: str) -> None:
    spec, note = load(MODELS / BUNDLES[runtime]).model(runtime)
    values = {**json.loads(note), "package": "no_such_weights", "distribution": "no-such-weights"}
    with pytest.raises(ConfigError, match="no-such-weights, which is not installed"):
        open_session(runtime, json.dumps(values).encode(), spec)


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"{}",
        b"[1]",
        b"x" * 100_000,
        json.dumps({"package": "a", "distribution": "a", "files": {}}).encode(),
        json.dumps({"package": "a", "distribution": "a", "files": {"../x": "0"}}).encode(),
        json.dumps({"package": "a", "distribution": "a", "files": {"/etc/passwd": "0"}}).encode(),
        json.dumps({"package": "a.b", "distribution": "a", "files": {"x": "0"}}).encode(),
    ],
    ids=["empty", "no keys", "a list", "too long", "no files", "up", "absolute", "no package"],
)
def test_note_that_is_none_is_refused_in_words(note: bytes) -> None:
    with pytest.raises(ModelError, match="recogniser's note"):
        read_note(note)


def test_recogniser_that_is_too_slow_misses_its_deadline_and_is_ended() -> None:
    bundle = load(MODELS / BUNDLES["whisper"])
    spec, note = bundle.model("whisper")
    session = IsolatedSession("whisper", note, spec, deadline_s=0.01, start_timeout_s=60)
    with pytest.raises(DeadlineError, match="deadline"):
        session.infer(np.asarray(bundle.golden("whisper")[0][:1], np.float32))
    assert session.pid is None
