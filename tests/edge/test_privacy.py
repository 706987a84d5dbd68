"""What a station keeps, shows and sends of pictures and sounds: nothing, features only, deferrals, all; and consent."""

import dataclasses
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import privacy
from edge.engines import Engine
from edge.recognised import answer
from edge.values import Judgement, StationSettings, Window
from edge.wire.manifest import TensorSpec
from edge.wire.rows import FEATURES_MEDIA_TYPE, DecisionRow
from edge.work import Work
from tests.edge.test_pipeline import BETWEEN, BRIGHT, SPEC, Line, unreadable
from tests.rows import decision
from tests.seams.fakes import FakeSession

SURE = Judgement("pass", "pass", None, None, "good", 0.99, {}, 0.0)
AUDITED = dataclasses.replace(SURE, reason="audit")
UNSURE = dataclasses.replace(SURE, verdict="defer", action="hand_over", reason="unsure")
# The network of the tests takes pictures; what makes a window a sound is its media type.
SPOKEN = dataclasses.replace(BETWEEN, name="said.wav", key="said.wav", media_type="audio/wav", raw=b"RIFF and a voice")
LIVE = Window("microphone", "segment", "1", "audio/wav", np.zeros(800, np.float32), sample_rate_hz=8000)
FEATURES = np.array([0.5, -1.25, 3.0, 7.5], np.float32)
TEXT = "ada was here"


def settings(**changes: Any) -> StationSettings:
    return StationSettings("main", **changes)


@pytest.mark.parametrize(
    ("keep", "sure", "audited", "unsure"),
    [
        ("none", None, None, None),
        ("features", "features", "features", "features"),
        ("deferred", None, "input", "input"),
        ("all", "input", "input", "input"),
    ],
)
def test_keep_says_what_stays_of_which_decisions(keep: Any, sure: object, audited: object, unsure: object) -> None:
    kept = [privacy.keeps(settings(keep=keep), judgement, BRIGHT) for judgement in (SURE, AUDITED, UNSURE)]
    assert kept == [sure, audited, unsure]


@pytest.mark.parametrize("window", [SPOKEN, LIVE, dataclasses.replace(LIVE, media_type="application/octet-stream")])
@pytest.mark.parametrize("keep", ["all", "deferred", "features"])
def test_sound_without_consent_is_not_kept_whatever_the_station_says(window: Window, keep: Any) -> None:
    assert privacy.keeps(settings(keep=keep), UNSURE, window) is None
    assert privacy.keeps(settings(keep=keep, sound_consent=True), UNSURE, window) is not None
    assert privacy.keeps(settings(keep=keep), UNSURE, BETWEEN) is not None


def test_sound_that_could_not_be_read_is_a_sound() -> None:
    broken = Window("http", "said", "1", "audio/wav", None, b"half a sound", problem="cut short")
    assert privacy.keeps(settings(keep="all"), UNSURE, broken) is None


@pytest.mark.parametrize(
    ("source", "agreed"), [("audio_file", True), ("replay", True), ("http", False), ("microphone", False)]
)
def test_only_what_the_operator_has_recorded_counts_as_agreed(source: str, agreed: bool) -> None:
    assert privacy.agreed_by_default(source) is agreed


# ── in the pipeline ─────────────────────────────────────────────────────────────────────────────────────────────


class Keeping:
    """A station whose network gives features, or understands a text."""

    def __init__(self, folder: Path, windows: list[Window], **changes: Any) -> None:
        self.line = Line(folder, windows, **changes)
        self.folder = folder

    def serve(self, *, features: bool = False, text: str | None = None) -> None:
        real = self.line.bench.serving.current()
        assert real is not None
        extras: dict[str, TensorSpec] = {}
        values: list[float] = [0.1, 0.0]
        if features:
            extras["features"] = TensorSpec(name="features", shape=[1, len(FEATURES)], dtype="float32")
            values += [*FEATURES, 9.0]  # behind them, what is no feature
        if text is not None:
            extras["text"] = TensorSpec(name="text", shape=[1, 64], dtype="float32")
            values = [*values, *answer(text, 0.5, 64)[2:]]
        spec = SPEC.model_copy(update=extras)
        session = FakeSession(SPEC, [np.array(values, np.float32)])
        self.line.bench.serving.offer(Engine(real.bundle, spec, session))

    def recorded(self, row: DecisionRow) -> DecisionRow:
        found = self.line.store.decision(row.seq)
        assert found is not None
        return found

    def on_disk(self, content: bytes) -> bool:
        return any(content in path.read_bytes() for path in self.folder.glob("lineside.sqlite*"))

    def close(self) -> None:
        self.line.bench.serving.close()
        self.line.store.close()


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Any]:
    made: list[Keeping] = []

    def make(*windows: Window, **changes: Any) -> Keeping:
        made.append(Keeping(tmp_path, [*windows], **changes))
        return made[0]

    yield make
    for station in made:
        station.close()


def test_station_that_keeps_features_keeps_those_and_no_picture(keeping: Any) -> None:
    station = keeping(BETWEEN, keep="features")
    station.serve(features=True)
    row = station.line.decide()
    assert not row.input.kept and row.input.features is not None
    found = station.line.store.inputs.get(row.input.features)
    assert found is not None and found[1] == FEATURES_MEDIA_TYPE
    assert hashlib.sha256(found[0]).hexdigest() == row.input.features
    kept = np.load(io.BytesIO(found[0]), allow_pickle=False)
    assert kept.dtype == np.float32 and np.array_equal(kept, FEATURES)
    assert station.line.store.inputs.get(row.input.digest) is None
    assert station.line.store.inputs.waiting() == 0, "features stay on the device"
    assert not station.on_disk(BETWEEN.raw)
    assert station.recorded(row) == row


@pytest.mark.parametrize("window", [BETWEEN, unreadable("cut short")], ids=["no features", "no answer"])
def test_without_features_such_a_station_keeps_nothing(keeping: Any, window: Window) -> None:
    station = keeping(window, keep="features")
    row = station.line.decide()
    assert (row.verdict, row.input.kept, row.input.features) == ("defer", False, None)
    assert not station.on_disk(window.raw)


def test_text_without_consent_goes_to_who_asked_and_not_into_the_record(keeping: Any) -> None:
    answered: list[DecisionRow | None] = []
    asked = dataclasses.replace(SPOKEN, answer=answered.append)
    station = keeping(asked, keep="all")
    station.serve(text=TEXT)
    row = station.line.decide()
    assert answered[0] is not None and answered[0].text == row.text == TEXT
    assert station.recorded(row).text is None and not station.recorded(row).input.kept
    station.line.pipeline.finish()
    assert not station.on_disk(TEXT.encode()) and not station.on_disk(SPOKEN.raw)
    (telemetry,) = station.line.store.rows(kind="telemetry")
    assert telemetry.counts["text.words"] == 3, "how many words is no text"
    window, shown = station.line.pipeline.last
    assert (window.data, window.raw, window.encode, shown.text) == (None, None, None, None)


def test_consent_that_is_given_and_withdrawn_holds_from_the_next_window_on(keeping: Any) -> None:
    said = [dataclasses.replace(SPOKEN, key=f"{n}", raw=b"RIFF number %d" % n) for n in range(3)]
    station = keeping(*said, keep="all", sound_consent=True)
    station.serve(text=TEXT)
    rows = []
    for agreed in (True, False, True):
        station.line.settings = dataclasses.replace(station.line.settings, sound_consent=agreed)
        rows.append(station.recorded(station.line.decide()))
    assert [row.input.kept for row in rows] == [True, False, True]
    assert [row.text for row in rows] == [TEXT, None, TEXT]
    assert [station.on_disk(window.raw) for window in said] == [True, False, True]


def test_picture_needs_no_consent_of_who_is_heard() -> None:
    work = Work(BRIGHT, settings(), None)
    row = decision(text=None)
    assert privacy.shown(work.settings, BRIGHT, row) == (BRIGHT, row)
