"""A station's line in its pipeline: stopped, held over restarts, acknowledged, and the alarms that people see."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.linewatch import LINE_META, LineWatch, read_line
from edge.pipeline import Pipeline
from edge.stationrules import LineRules
from edge.values import Window
from edge.wire.rows import EventRow
from tests.edge.test_pipeline import BRIGHT, DARK, FullStore, Line, picture
from tests.seams.fakes import ScriptedSource

STOPS = LineRules(stop_after_rejects=3)
HOURLY = LineRules(reference_every_s=3600.0, reference_name="ref-*")
REFERENCE = picture(5, "ref-1.png")


def ruled(folder: Path, rules: LineRules, windows: Sequence[Window | None]) -> Line:
    """A station with rules."""
    line = Line(folder, [])
    restart(line, rules, windows)
    return line


def restart(line: Line, rules: LineRules, windows: Sequence[Window | None]) -> None:
    """Put the pipeline together again on the same record, as a restart does."""
    watch = LineWatch(rules, "main", line.store, line.actuator, line.clock, "boot")
    source = ScriptedSource(windows)
    line.parts = dataclasses.replace(line.parts, line=watch, source=source)
    line.pipeline = Pipeline(line.parts)


def acknowledge(line: Line) -> None:
    line.settings = dataclasses.replace(line.settings, acknowledged=read_line(line.store, "main").stop)


def told(line: Line) -> list[str]:
    return [name for name in line.events() if name.startswith(("line_", "reference_"))]


def test_rejects_in_a_row_stop_the_line_until_it_is_acknowledged(tmp_path: Path) -> None:
    line = ruled(tmp_path, STOPS, [DARK, DARK, DARK, BRIGHT, None, BRIGHT])
    assert [line.decide().action for _ in range(3)] == ["divert"] * 3
    assert line.actuator.stopped_for == ["3 rejects in a row"]
    held = line.decide()
    assert (held.verdict, held.action) == ("pass", "safe")
    assert held.detail == "the line is stopped: 3 rejects in a row"
    assert "3 rejects in a row; acknowledge it" in (line.pipeline.problem or "")
    acknowledge(line)
    assert line.pipeline.run_once() is None
    assert line.actuator.released == 1, "no part comes on a line that stands"
    assert line.decide().action == "pass" and line.pipeline.problem is None
    assert told(line) == ["line_stop_raised", "line_stop_cleared"]


def test_acknowledgement_of_an_earlier_stop_ends_no_later_one(tmp_path: Path) -> None:
    line = ruled(tmp_path, STOPS, [DARK] * 3 + [None] + [DARK] * 3 + [None, BRIGHT])
    for _ in range(3):
        line.decide()
    acknowledge(line)
    line.pipeline.run_once()
    assert [line.decide().action for _ in range(3)] == ["divert"] * 3
    line.pipeline.run_once()
    assert line.decide().action == "safe" and line.actuator.released == 1


def test_stopped_line_stands_over_a_restart(tmp_path: Path) -> None:
    line = ruled(tmp_path, STOPS, [DARK] * 3)
    for _ in range(3):
        line.decide()
    line.actuator.stopped_for.clear()
    restart(line, STOPS, [BRIGHT])
    assert line.actuator.stopped_for == ["3 rejects in a row"], "a plant whose wires were let go is stopped again"
    assert line.decide().action == "safe"
    assert told(line) == ["line_stop_raised", "line_stop_raised"]


class PowerCutError(BaseException):
    """Ends everything at once, as a cut of the power does."""


def test_stop_that_the_power_cut_overtook_stands_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ruled(tmp_path, STOPS, [DARK] * 3)

    def stop_then_cut(why: str) -> None:
        line.actuator.stopped_for.append(why)
        raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr(line.actuator, "stop", stop_then_cut)
        line.decide()
        line.decide()
        with pytest.raises(PowerCutError):
            line.decide()
    assert read_line(line.store, "main").stop is not None, "a plant that stands must be one that can be acknowledged"
    restart(line, STOPS, [BRIGHT])
    assert line.decide().action == "safe"


def test_rejects_before_a_restart_count(tmp_path: Path) -> None:
    line = ruled(tmp_path, STOPS, [BRIGHT, DARK, DARK])
    for _ in range(3):
        line.decide()
    restart(line, STOPS, [DARK])
    line.decide()
    assert told(line) == ["line_stop_raised"]


def test_plant_that_does_not_stop_is_told_to_until_it_does(tmp_path: Path) -> None:
    line = ruled(tmp_path, STOPS, [DARK, DARK, DARK, None, None])
    line.decide()
    line.decide()
    line.actuator.failing = "no route to host"
    line.decide()
    assert "the plant does not stop: no route to host" in (line.pipeline.problem or "")
    line.pipeline.run_once()
    assert line.actuator.stopped_for == []
    line.actuator.failing = None
    line.pipeline.run_once()
    assert len(line.actuator.stopped_for) == 1


def test_plant_that_does_not_take_the_release_stands_on_record_too(tmp_path: Path) -> None:
    line = ruled(tmp_path, STOPS, [DARK, DARK, DARK, None, None])
    for _ in range(3):
        line.decide()
    acknowledge(line)
    line.actuator.failing = "no route to host"
    line.pipeline.run_once()
    assert read_line(line.store, "main").stop is not None
    line.actuator.failing = None
    line.pipeline.run_once()
    assert read_line(line.store, "main").stop is None and told(line)[-1] == "line_stop_cleared"


def test_reference_part_every_hour_or_an_alarm(tmp_path: Path) -> None:
    line = ruled(tmp_path, HOURLY, [DARK, None, REFERENCE])
    line.decide()
    line.clock.forward(3601)
    line.pipeline.run_once()
    events = [row for row in line.store.rows(kind="event") if isinstance(row, EventRow) and "reference" in row.name]
    assert [(row.name, row.severity) for row in events] == [("reference_part_missing_raised", "alarm")]
    assert events[0].detail == "no reference part was rejected within 60 min"
    line.decide()
    assert told(line) == ["reference_part_missing_raised", "reference_part_missing_cleared"]


def test_restart_does_not_begin_the_hour_anew(tmp_path: Path) -> None:
    line = ruled(tmp_path, HOURLY, [REFERENCE])
    line.decide()
    line.clock.forward(3000)
    restart(line, HOURLY, [None, None])
    line.pipeline.run_once()
    assert told(line) == []
    line.clock.forward(700)
    line.pipeline.run_once()
    assert told(line) == ["reference_part_missing_raised"]


def test_reference_part_that_passes_is_an_alarm_in_words(tmp_path: Path) -> None:
    line = ruled(tmp_path, HOURLY, [picture(250, "ref-1.png")])
    line.decide()
    (event,) = [row for row in line.store.rows(kind="event") if row.name.startswith("reference")]  # type: ignore[union-attr]
    assert event.detail == "a reference part was not rejected"  # type: ignore[union-attr]


def test_full_disk_stops_the_line_all_the_same_and_is_written_down_later(tmp_path: Path) -> None:
    line = ruled(tmp_path, STOPS, [])
    full = FullStore(line.store)
    set_meta = line.store.set_meta
    watch = LineWatch(STOPS, "main", full, line.actuator, line.clock, "boot")
    line.parts = dataclasses.replace(line.parts, line=watch, source=ScriptedSource([DARK, DARK, DARK, None]))
    line.pipeline = Pipeline(line.parts)

    def refuse(key: str, value: str) -> None:
        full.append_event("none")

    line.decide()
    line.decide()
    line.store.set_meta = refuse  # type: ignore[method-assign]
    full.full = True
    line.decide()
    assert line.actuator.stopped_for == ["3 rejects in a row"] and read_line(line.store, "main").stop is None
    line.store.set_meta = set_meta  # type: ignore[method-assign]
    full.full = False
    line.pipeline.run_once()
    assert read_line(line.store, "main").stop is not None


def test_record_of_the_line_that_cannot_be_read_is_a_line_that_stands(tmp_path: Path) -> None:
    line = Line(tmp_path, [])
    line.store.set_meta(f"{LINE_META}main", "{rubbish")
    restart(line, STOPS, [BRIGHT, BRIGHT])
    assert line.decide().action == "safe"
    acknowledge(line)
    assert line.decide().action == "pass"


@pytest.mark.parametrize("mode", ["human", "shadow", "assist"])
def test_where_a_person_decides_no_rejects_stop_the_line(tmp_path: Path, mode: str) -> None:
    line = ruled(tmp_path, STOPS, [DARK] * 6)
    line.settings = dataclasses.replace(line.settings, mode=mode)  # type: ignore[arg-type]
    for _ in range(6):
        line.decide()
    assert line.actuator.stopped_for == [] and told(line) == []
