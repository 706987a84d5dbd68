"""Every actuator keeps the same promises, each against a real plant; then what the log promises besides."""

import itertools
import json
import os
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge.actuators import ACTUATORS, CONFIRM_LATER, open_actuator, probe_actuator
from edge.actuators.gpio import GpioActuator
from edge.actuators.interface import Actuator, Place
from edge.actuators.reopening import LaterActuator, open_or_later
from edge.actuators.settings import SETTINGS, GpioSettings
from edge.errors import ActuatorError, ConfigError
from edge.store import Store
from edge.wire.rows import DecisionRow, InputRef
from tests.brokers import broker
from tests.clocks import HeldClock
from tests.plants import HEARTBEAT, FakeLines, Plc
from tests.seams.fakes import RecordingActuator
from tests.webserver import WebServer


@dataclass
class Bench:
    """Where an actuator is tried out."""

    folder: Path
    stack: ExitStack
    clock: HeldClock

    @property
    def place(self) -> Place:
        return Place("box-1", "press", "b" * 32, lambda: Store.open(self.folder / "r.sqlite", clock=self.clock))


def open_gpio(bench: Bench) -> Actuator:
    """Open the real actuator on lines that need no chip."""
    settings = GpioSettings.model_validate({"lines": {"divert": "GPIO17", "safe": 3, "stop": "GPIO4"}, "pulse_ms": 5})
    return GpioActuator(settings, FakeLines, bench.clock)


def open_modbus(bench: Bench) -> Actuator:
    plc = bench.stack.enter_context(Plc())
    coils = {"divert": 1, "safe": 2, "stop": 3}
    settings = {"host": "127.0.0.1", "port": plc.port, "coils": coils, "pulse_ms": 5, "timeout_ms": 2000}
    return open_actuator("modbus", settings, clock=bench.clock, place=bench.place)


def open_mqtt(bench: Bench) -> Actuator:
    running = bench.stack.enter_context(broker("nats", bench.folder / "broker"))
    settings = {"host": "127.0.0.1", "port": running.port, "topic": "plant/press", "timeout_ms": 5000}
    return open_actuator("mqtt", settings, clock=bench.clock, place=bench.place)


def open_webhook(bench: Bench) -> Actuator:
    server = bench.stack.enter_context(WebServer())
    server.behaviour.answer = lambda _request: (200, b"ok")
    secret = bench.folder / "webhook.key"
    secret.write_text("k" * 32)
    settings = {"url": f"{server.url}/taken", "secret_file": str(secret)}
    return open_actuator("webhook", settings, clock=bench.clock, place=bench.place)


def open_log(bench: Bench) -> Actuator:
    return open_actuator("log", {"path": str(bench.folder / "log.jsonl")}, clock=bench.clock)


Make = Callable[[Bench], Actuator]
MAKERS: dict[str, Make] = {
    "gpio": open_gpio,
    "log": open_log,
    "modbus": open_modbus,
    "mqtt": open_mqtt,
    "none": lambda bench: open_actuator("none", {}, clock=bench.clock),
    "recording": lambda _bench: RecordingActuator(),
    "later": lambda bench: open_or_later("log", lambda: open_log(bench), bench.clock),
    "webhook": open_webhook,
}
FAKES = {"recording", "later"}


@pytest.fixture(params=sorted(MAKERS))
def actuator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Actuator]:
    with ExitStack() as stack:
        made = MAKERS[request.param](Bench(tmp_path, stack, HeldClock()))
        stack.callback(made.close)
        yield made


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
    return open_actuator("log", {"path": str(folder / "log.jsonl")}, clock=HeldClock())


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_action_is_taken_with_a_word_or_none(actuator: Actuator) -> None:
    for seq in range(1, 4):
        detail = actuator.act(decision(seq))
        assert detail is None or isinstance(detail, str)
    actuator.safe("no room on disk")


SAMPLE = Path(__file__).parents[2] / "firmware_configs" / "samples" / "box.toml"


@pytest.mark.parametrize("kind", sorted(ACTUATORS))
def test_sample_of_the_box_names_every_setting_and_its_default(kind: str) -> None:
    behind = SAMPLE.read_text().partition("[station.main.actuator]")[2].partition(f'kind = "{kind}"')[2]
    lines = itertools.takewhile(lambda line: line not in ("", "#"), behind.split("\n")[1:])
    block = tomllib.loads("\n".join(line.removeprefix("# ") for line in lines))
    settings = SETTINGS[kind]
    assert set(block) == set(settings.model_fields)
    settings.model_validate(block)
    for name, field in settings.model_fields.items():
        if isinstance(field.default, float):
            assert block[name] == field.default, name


@dataclass
class Wired:
    """An actuator's settings and a way to see whether its plant was touched."""

    kind: str
    settings: dict[str, Any]
    touched: Callable[[], bool]


def wired_plants(stack: ExitStack, folder: Path) -> list[Wired]:
    plc, server = stack.enter_context(Plc()), stack.enter_context(WebServer())
    running = stack.enter_context(broker("nats", folder / "broker"))
    (folder / "webhook.key").write_text("k" * 32)
    modbus = {"host": "127.0.0.1", "port": plc.port, "coils": {"divert": 1}, "heartbeat_register": HEARTBEAT}
    mqtt = {"host": "127.0.0.1", "port": running.port, "topic": "plant/press"}
    webhook = {"url": f"{server.url}/x", "secret_file": str(folder / "webhook.key")}
    return [
        Wired("modbus", modbus, lambda: bool(plc.writes or plc.beats)),
        Wired("mqtt", mqtt, lambda: False),
        Wired("webhook", webhook, lambda: bool(server.requests)),
        Wired("log", {"path": str(folder / "log.jsonl")}, lambda: (folder / "log.jsonl").read_text() != ""),
    ]


def test_probe_finds_the_plant_and_moves_nothing(tmp_path: Path) -> None:
    with ExitStack() as stack:
        plants = wired_plants(stack, tmp_path)
        for plant in plants:
            assert probe_actuator(plant.kind, plant.settings, clock=HeldClock())
            assert not plant.touched(), plant.kind
    for plant in plants:
        if plant.kind != "log":
            with pytest.raises(ActuatorError):
                probe_actuator(plant.kind, plant.settings, clock=HeldClock())


def test_probe_names_a_coil_that_the_plc_does_not_have() -> None:
    with Plc() as plc, pytest.raises(ActuatorError, match="reading coil 99: the PLC refuses with exception code 2"):
        settings = {"host": "127.0.0.1", "port": plc.port, "coils": {"divert": 99}}
        probe_actuator("modbus", settings, clock=HeldClock())


def test_probe_of_a_box_without_the_chip_is_an_error() -> None:
    with pytest.raises(ActuatorError, match="cannot take lines 4"):
        probe_actuator("gpio", {"chip": "/dev/null", "lines": {"divert": 4}}, clock=HeldClock())


def test_line_is_stopped_and_let_run_again(actuator: Actuator) -> None:
    actuator.stop("5 rejects in a row")
    actuator.release()
    actuator.release()
    assert actuator.act(decision(1)) is None or actuator.look() is None


def test_plant_that_is_there_has_no_problem_and_its_promises_are_plain(actuator: Actuator) -> None:
    assert actuator.look() is None
    assert 0 < actuator.deadline_ms <= 10_000
    assert actuator.confirms_later == (actuator.kind in CONFIRM_LATER)


def test_kind_is_the_name_in_the_table(actuator: Actuator) -> None:
    assert actuator.kind in {*ACTUATORS, "recording"}
    if not isinstance(actuator, LaterActuator | RecordingActuator):
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
    with pytest.raises(ActuatorError, match="closed"):
        actuator.stop("why")
    with pytest.raises(ActuatorError, match="closed"):
        actuator.release()


def test_table_of_actuators_is_complete_and_unknown_ones_are_refused() -> None:
    assert set(MAKERS) - FAKES == set(ACTUATORS)
    with pytest.raises(ConfigError, match="gpio, log, modbus"):
        open_actuator("catapult", {}, clock=HeldClock())


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("log", {}, "path: Field required"),
        ("log", {"path": "x", "y": 1}, "y"),
        ("none", {"path": "x"}, "path"),
        ("gpio", {"lines": {}}, "lines"),
        ("gpio", {"lines": {"launch": 4}}, "launch"),
        ("modbus", {"host": "h", "coils": {"divert": -1}}, "coils.divert"),
        ("mqtt", {"host": "h", "topic": "plant/#"}, "topic"),
        ("webhook", {"url": "ftp://h", "secret_file": "s"}, "url"),
    ],
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
