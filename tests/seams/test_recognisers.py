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
from edge.runtimes.weights import checked_files, read_note
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


def test_what_was_heard_before_changes_no_bit_of_the_answer(opened: Opened) -> None:
    alone = opened.session.infer(opened.sound)
    noise = np.random.default_rng(4).normal(0, 0.1, opened.spec.input.shape).astype(np.float32)
    noise[:, 32_000:] = 0
    for other in (noise, opened.sound * np.float32(0.2), noise[:, ::-1].copy()):
        opened.session.infer(other)
        assert np.array_equal(opened.session.infer(opened.sound), alone)


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


@pytest.mark.parametrize("how", OPENERS)
@pytest.mark.parametrize("runtime", BUNDLES)
def test_model_file_other_than_a_recogniser_has_is_refused_with_expected_and_got(runtime: str, how: str) -> None:
    spec, note = load(MODELS / BUNDLES[runtime]).model(runtime)
    assert spec.text is not None
    wrong = [
        {"output": spec.output.model_copy(update={"shape": [1, 3]})},
        {"input": spec.input.model_copy(update={"dtype": "int8"})},
        {"text": spec.text.model_copy(update={"dtype": "uint8"})},
        {"features": spec.text},
    ]
    for changes in wrong:
        with pytest.raises(ModelError, match=r"expected .* got"):
            OPENERS[how](runtime, note, spec.model_copy(update=changes))
    with pytest.raises(ModelError, match="`text`"):
        OPENERS[how](runtime, note, spec.model_copy(update={"text": None}))


@pytest.mark.parametrize("runtime", BUNDLES)
def test_note_that_leaves_a_needed_file_out_is_refused_before_the_engine_looks_for_it_elsewhere(runtime: str) -> None:
    spec, note = load(MODELS / BUNDLES[runtime]).model(runtime)
    values = json.loads(note)
    needed = {"whisper": "model/tokenizer.json", "pocketsphinx": "model/en-us/cmudict-en-us.dict"}[runtime]
    del values["files"][needed]
    with pytest.raises(ModelError, match=rf"without {needed}"):
        open_session(runtime, json.dumps(values).encode(), spec)


@pytest.mark.parametrize("least_s", ["ten", -1, 0, 1e9, True, None])
def test_setting_that_is_no_length_is_refused_in_words(least_s: object) -> None:
    spec, note = load(MODELS / BUNDLES["whisper"]).model("whisper")
    values = {**json.loads(note), "settings": {"least_s": least_s}}
    with pytest.raises(ModelError, match="least_s: expected a number above 0 and at most 30"):
        open_session("whisper", json.dumps(values).encode(), spec)


def test_weights_that_are_too_large_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    note = read_note(load(MODELS / BUNDLES["pocketsphinx"]).model("pocketsphinx")[1])
    assert len(checked_files(note)) == len(note.files)
    sizes = [len(content) for content in checked_files(note).values()]
    monkeypatch.setattr("edge.runtimes.weights.MAX_WEIGHTS_BYTES", sum(sizes) - 1)
    with pytest.raises(ModelError, match="expected at most"):
        checked_files(note)


@pytest.mark.parametrize("package", ["sys", "__main__"])
def test_module_without_a_folder_holds_no_weights(package: str) -> None:
    note = json.dumps({"package": package, "distribution": "d", "files": {"x": "0" * 64}}).encode()
    with pytest.raises(ConfigError, match="not installed"):
        checked_files(read_note(note))


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
        json.dumps({"package": "a", "distribution": "a", "files": {"x": 5}}).encode(),
        json.dumps({"package": "a", "distribution": "a", "files": {"x": "../../y"}}).encode(),
        json.dumps({"package": "a.b", "distribution": "a", "files": {"x": "0"}}).encode(),
    ],
    ids=["empty", "no keys", "a list", "too long", "no files", "up", "absolute", "a number", "no digest", "no package"],
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
