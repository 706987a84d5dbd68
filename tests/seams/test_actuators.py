"""Every actuator keeps the same promises; then what the log promises besides."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.actuators import ACTUATORS, open_actuator
from edge.actuators.interface import Actuator
from edge.errors import ActuatorError, ConfigError
from edge.wire.rows import DecisionRow, InputRef
from tests.clocks import HeldClock
from tests.seams.fakes import RecordingActuator

Make = Callable[[Path], Actuator]
MAKERS: dict[str, Make] = {
    "log": lambda folder: open_actuator("log", {"path": str(folder / "log.jsonl")}, clock=HeldClock()),
    "none": lambda _folder: open_actuator("none", {}, clock=HeldClock()),
    "recording": lambda _folder: RecordingActuator(),
}


@pytest.fixture(params=sorted(MAKERS))
def actuator(request: pytest.FixtureRequest, tmp_path: Path) -> Actuator:
    return MAKERS[request.param](tmp_path)


def decision(seq: int, **changes: Any) -> DecisionRow:
    """Return a decision to divert."""
    values = {
        "seq": seq,
        "station": "press",
        "at_ms": 1_700_000_000_000,
        "boot_id": "b" * 32,
        "monotonic_ms": 5,
        "mode": "partial",
        "verdict": "divert",
        "action": "divert",
        "input": InputRef(source="folder", name="a", digest="0" * 64, media_type="image/png", size_bytes=1, kept=False),
    }
    return DecisionRow.model_validate(values | changes)


def log_in(folder: Path) -> Actuator:
    return MAKERS["log"](folder)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_action_is_taken_with_a_word_or_none(actuator: Actuator) -> None:
    for seq in range(1, 4):
        detail = actuator.act(decision(seq))
        assert detail is None or isinstance(detail, str)
    actuator.safe("no room on disk")


def test_kind_is_the_name_in_the_table(actuator: Actuator) -> None:
    assert actuator.kind in {*ACTUATORS, "recording"}
    if actuator.kind != "recording":
        module = ACTUATORS[actuator.kind].partition(":")[0]
        assert type(actuator).__module__ == module


def test_closed_actuator_refuses_and_closes_again(actuator: Actuator) -> None:
    actuator.close()
    actuator.close()
    with pytest.raises(ActuatorError, match="closed") as caught:
        actuator.act(decision(1))
    assert caught.value.retry is False
    with pytest.raises(ActuatorError, match="closed"):
        actuator.safe("why")


def test_table_of_actuators_is_complete_and_unknown_ones_are_refused() -> None:
    assert set(MAKERS) - {"recording"} == set(ACTUATORS)
    with pytest.raises(ConfigError, match="log, none"):
        open_actuator("catapult", {}, clock=HeldClock())


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [("log", {}, "path: Field required"), ("log", {"path": "x", "y": 1}, "y"), ("none", {"path": "x"}, "path")],
)
def test_wrong_setting_is_named(kind: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_actuator(kind, settings, clock=HeldClock())


def test_log_holds_one_line_per_action_in_order(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.act(decision(7))
    log.safe("not recorded")
    log.act(decision(8, verdict="pass", action="pass"))
    seven, safe, eight = lines(tmp_path)
    assert (seven["decision"], seven["verdict"], seven["action"]) == (7, "divert", "divert")
    assert seven["station"] == "press" and seven["boot_id"] == "b" * 32 and seven["at_ms"] == 1_700_000_000_000
    assert (safe["decision"], safe["action"], safe["why"]) == (None, "safe", "not recorded")
    assert (eight["decision"], eight["action"]) == (8, "pass")


def test_log_goes_on_where_it_was_after_a_restart(tmp_path: Path) -> None:
    for seq in (1, 2):
        log = log_in(tmp_path)
        log.act(decision(seq))
        log.close()
    assert [line["decision"] for line in lines(tmp_path)] == [1, 2]


def test_lines_of_several_writers_never_mix(tmp_path: Path) -> None:
    def write(first: int) -> None:
        log = log_in(tmp_path)
        for seq in range(first, first + 200):
            log.act(decision(seq))
        log.close()

    threads = [threading.Thread(target=write, args=(1 + 200 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line["decision"] for line in lines(tmp_path)) == list(range(1, 801))


def test_log_on_a_full_disk_is_an_error_that_may_pass() -> None:
    log = open_actuator("log", {"path": "/dev/full"}, clock=HeldClock())
    with pytest.raises(ActuatorError, match="No space left") as caught:
        log.act(decision(1))
    assert caught.value.retry
    log.close()


def test_half_a_line_is_an_error_and_does_not_spoil_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_in(tmp_path)
    write = os.write
    with monkeypatch.context() as half:
        half.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
        with pytest.raises(ActuatorError, match="20 of"):
            log.act(decision(1))
    log.act(decision(2))
    _torn, whole = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(whole)["decision"] == 2


def test_log_in_a_place_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ActuatorError, match="cannot open for appending"):
        open_actuator("log", {"path": str(tmp_path / "file" / "log.jsonl")}, clock=HeldClock())


def test_failing_fake_fails_until_it_is_mended() -> None:
    fake = RecordingActuator()
    fake.failing = "arm stuck"
    with pytest.raises(ActuatorError, match="arm stuck"):
        fake.act(decision(1))
    fake.failing = None
    fake.act(decision(2))
    assert [row.seq for row in fake.acted] == [2]
