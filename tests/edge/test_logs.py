"""What is recorded as an event is written to the log in the same words."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.logs import EVENTS, LogFormat, log_events
from edge.store import Store
from tests.clocks import HeldClock


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = list(EVENTS.handlers)
    yield
    EVENTS.handlers[:] = before


def logged(tmp_path: Path, style: LogFormat) -> str:
    out = io.StringIO()
    log_events(style, out, "box-1")
    with Store.open(tmp_path / "record.db", clock=HeldClock()) as store:
        store.append_event(
            "source_lost", boot_id="b", severity="alarm", station="main", detail="no camera", data={"tries": 3}
        )
    return out.getvalue()


def test_people_read_time_place_and_words(tmp_path: Path) -> None:
    line = logged(tmp_path, "people")
    assert line.endswith("! main: source lost: no camera\n")
    assert line[2] == line[5] == ":"


def test_collector_gets_one_json_object_a_line(tmp_path: Path) -> None:
    row = json.loads(logged(tmp_path, "json"))
    assert row["time"].endswith("Z")
    assert row["device"] == "box-1" and row["event"] == "source_lost" and row["level"] == "alarm"
    assert row["station"] == "main" and row["data"] == {"tries": 3} and row["seq"] == 1
    assert "model" not in row


def test_nothing_is_written_where_nothing_is_wanted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert logged(tmp_path, "none") == ""
    assert capfd.readouterr().err == ""


def test_levels_are_those_of_the_standard_library(tmp_path: Path) -> None:
    records: list[logging.LogRecord] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    EVENTS.addHandler(Kept())
    logged(tmp_path, "none")
    assert [record.levelno for record in records] == [logging.ERROR]
