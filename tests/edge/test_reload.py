"""A configuration that is read again: what holds at once, what waits for a restart; mistakes change nothing."""

import os
import signal
from pathlib import Path

import pytest

from edge.clock import SystemClock
from edge.config import Config, load_config
from edge.reload import compare
from edge.store import Store
from edge.wire.rows import EventRow
from tests.edge.commands.test_switch import CONFIG, Device
from tests.waiting import wait_until

WAIT_S = 30.0


def config(tmp_path: Path, text: str = CONFIG) -> Config:
    path = tmp_path / "box.toml"
    path.write_text(text)
    return load_config(path)


@pytest.mark.parametrize(
    ("before", "after", "changed", "restart"),
    [
        ("audit_share = 0\n", "audit_share = 0.5\n", ["station.main.audit_share"], []),
        ("audit_share = 0\n", 'mode = "human"\n', ["station.main.audit_share", "station.main.mode"], []),
        ('name = "box-1"', 'name = "box-2"', [], ["device.name"]),
        ('path = "inbox"', 'path = "outbox"', [], ["station.main.source.path"]),
        ("stop_after_rejects = 3", "stop_after_rejects = 4", [], ["station.main.stop_after_rejects"]),
        ("[link]", "[store]\nmax_rows = 5000\n[link]", ["store.max_rows"], []),
        ("[link]", "[store]\nmax_bytes = 50_000_000\n[link]", ["store.max_bytes"], []),
        ("audit_share = 0\n", "audit_share = 0\nkeep_days = 3\n", ["station.main.keep_days"], []),
        ("audit_share = 0\n", "audit_share = 0\nsound_consent = false\n", ["station.main.sound_consent"], []),
        ("[link]", '[store]\ndurability = "process"\n[link]', [], ["store.durability"]),
    ],
    ids=["share", "mode", "name", "source", "rule", "rows", "bytes", "days", "consent", "durability"],
)
def test_changed_key_holds_at_once_or_is_named_for_a_restart(
    tmp_path: Path, before: str, after: str, changed: list[str], restart: list[str]
) -> None:
    old = config(tmp_path)
    found = compare(old, config(tmp_path, CONFIG.replace(before, after)))
    assert (found.changed, found.restart) == (changed, restart)
    assert (found.config == old) == (not changed)


def test_station_that_came_or_went_waits_for_a_restart(tmp_path: Path) -> None:
    second = CONFIG + CONFIG[CONFIG.index("[station.main]") :].replace("main", "oven")
    one, two = config(tmp_path), config(tmp_path, second)
    assert set(compare(one, two).config.station) == {"main"} and compare(one, two).restart == ["station.oven"]
    assert set(compare(two, one).config.station) == {"main", "oven"} and compare(two, one).restart == ["station.oven"]


def test_same_file_changes_nothing(tmp_path: Path) -> None:
    assert (found := compare(config(tmp_path), config(tmp_path))).changed == found.restart == []


def test_running_daemon_takes_a_change_at_its_next_window_and_refuses_mistakes(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.start()
    try:
        assert device._process is not None
        path = tmp_path / "box.toml"
        path.write_text(CONFIG.replace("audit_share = 0\n", 'mode = "human"\nisolation = "process"\n').replace(
            'isolation = "inline"\n', "", 1
        ))  # fmt: skip
        os.kill(device._process.pid, signal.SIGHUP)
        wait_until(lambda: "config_reloaded" in told(tmp_path), WAIT_S, "the change")
        detail = told(tmp_path)["config_reloaded"].detail
        assert "station.main.mode" in detail and "needs a restart: station.main.isolation" in detail
        assert told(tmp_path)["station_changed"].data["mode"] == "human"
        path.write_text("[device]\nnome = 'x'\n")
        os.kill(device._process.pid, signal.SIGHUP)
        wait_until(lambda: "config_refused" in told(tmp_path), WAIT_S, "the refusal")
        assert "did you mean 'name'" in told(tmp_path)["config_refused"].detail
        assert device._process.poll() is None
    finally:
        device.stop()


def told(folder: Path) -> dict[str, EventRow]:
    """Return the last event of each name."""
    with Store.open_read_only(folder / "data" / "lineside.sqlite", clock=SystemClock()) as store:
        return {row.name: row for row in store.rows(kind="event") if isinstance(row, EventRow)}
