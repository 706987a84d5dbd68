"""What a station's decisions look like from above: drift is raised, and taken back when its reference goes."""

from typing import Any

import pytest

from edge.drift import WINDOW
from edge.observe import DEAF_AFTER_S, Observer
from edge.sources.heard import Heard
from edge.wire.base import BundleRef
from edge.wire.manifest import Manifest
from edge.wire.rows import DecisionRow, EventRow, Histogram, InputRef, TelemetryRow
from tests.bundles import bundle
from tests.clocks import HeldClock

INPUT = InputRef(source="folder", name="a", digest="0" * 64, media_type="image/png", size_bytes=1, kept=False)


class Told:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.events: list[EventRow] = []
        self.telemetry: list[TelemetryRow] = []

    def append_event(self, name: str, **values: Any) -> EventRow:
        row = EventRow.model_validate({"seq": 1, "at_ms": 0, "name": name, **values, "data": values.get("data") or {}})
        self.events.append(row)
        return row

    def append_telemetry(self, row: TelemetryRow) -> TelemetryRow:
        self.telemetry.append(row)
        return row


def decision(version: str, brightness: float) -> DecisionRow:
    return DecisionRow(
        seq=1,
        station="press",
        at_ms=0,
        boot_id="b",
        monotonic_ms=0,
        mode="partial",
        verdict="pass",
        action="pass",
        bundle=ref(version),
        input=INPUT,
        metrics={"brightness": brightness},
    )


def ref(version: str) -> BundleRef:
    return BundleRef(name="glass", version=version, digest=version[0] * 64, size_bytes=1)


@pytest.fixture
def manifest() -> Manifest:
    bright = Histogram(edges=[0.2, 0.4, 0.6, 0.8], counts=[0, 0, 0, 50, 950])
    return bundle().manifest.model_copy(update={"reference": {"brightness": bright}})


def test_drift_against_a_bundle_that_is_gone_is_taken_back(manifest: Manifest) -> None:
    told = Told()
    observer = Observer("press", "glass", told, HeldClock(), "boot", 60.0)
    for _ in range(3 * WINDOW):
        observer.decided(decision("1.0.0", 0.1), manifest)
    assert observer.drifting == ["brightness"]
    observer.decided(decision("2.0.0", 0.1), manifest)
    assert [event.name for event in told.events] == ["drift_raised", "drift_cleared"]
    cleared = told.events[1]
    assert (cleared.data["metric"], cleared.severity, cleared.model) == ("brightness", "info", "glass")
    assert observer.drifting == []


def test_change_of_a_bundle_without_drift_tells_nothing(manifest: Manifest) -> None:
    told = Told()
    observer = Observer("press", "glass", told, HeldClock(), "boot", 60.0)
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        observer.decided(decision(version, 0.9), manifest)
    assert told.events == []


@pytest.mark.parametrize(
    ("text", "reason", "counted"),
    [
        ("he was not", None, set()),
        ("he was not", "unsure", {"low_confidence"}),
        ("", "unsure", {"empty"}),
        (". . .", "unsure", {"empty"}),
        ("no no no no no", "unsure", {"repeats"}),
        ("he was not an…", "unsure", {"cut"}),
    ],
)
def test_text_is_counted_once_by_what_is_wrong_with_it(text: str, reason: Any, counted: set[str]) -> None:
    told = Told()
    observer = Observer("press", "glass", told, HeldClock(), "boot", 60.0)
    observer.decided(decision("1.0.0", 0.5).model_copy(update={"text": text, "reason": reason}), None)
    observer.flush()
    (row,) = told.telemetry
    kinds = ("empty", "repeats", "cut", "low_confidence")
    assert {kind for kind in kinds if row.counts[f"text.{kind}"]} == counted
    assert row.counts["text.recognised"] == 1 and row.counts["text.words"] == len(text.split())


def test_what_is_heard_between_decisions_goes_up_with_the_telemetry() -> None:
    told, clock = Told(), HeldClock()
    observer = Observer("desk", "words", told, clock, "boot", 60.0)
    observer.heard([Heard(1.0, 0.25, 0.0, 1e-4), Heard(1.0, 0.75, 0.5, 1e-2)])
    minute = observer.totals().minute
    assert minute is not None and minute.speech_share == 0.5
    observer.flush()
    (row,) = told.telemetry
    assert (row.counts["heard.ms"], row.counts["heard.speech_ms"], row.counts["decisions"]) == (2000, 1000, 0)
    assert set(row.histograms) == {"heard.level_dbfs", "heard.speech_share", "heard.clipping"}
    assert all(histogram.total == 2 for histogram in row.histograms.values())
    assert observer.totals().counts["heard.speech_ms"] == 1000, "the count since the start goes on"


def test_minute_that_was_heard_long_ago_is_not_the_last_one() -> None:
    clock = HeldClock()
    observer = Observer("desk", "words", Told(), clock, "boot", 60.0)
    observer.heard([Heard(1.0, 0.25, 0.0, 1e-4)])
    clock.forward(DEAF_AFTER_S)
    assert observer.totals().minute is None
