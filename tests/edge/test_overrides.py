"""Who says how a station decides: its config, the cloud, and before both whoever stands at the device."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.overrides import SWITCH_META, StationOverrides, Switch, read_switch, set_switch, taken_switch
from edge.store import Store
from edge.values import StationSettings
from edge.wire.messages import DesiredStation
from edge.wire.rows import EventRow
from edge.wire.terms import MODES, Mode
from tests.clocks import HeldClock

OWN = {"main": StationSettings(station="main", mode="partial"), "oven": StationSettings(station="oven")}
HELD = Switch(mode="human", by="anna", at_ms=7)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "r.sqlite", clock=HeldClock(), durability="process")


def changes(store: Store) -> list[EventRow]:
    return [row for row in store.rows(kind="event") if isinstance(row, EventRow)]


def test_switch_at_the_device_holds_from_the_next_look_and_is_on_record(store: Store) -> None:
    overrides = StationOverrides(OWN, store, "boot")
    set_switch(store, "main", HELD)
    assert overrides.settings("main").mode == "partial"
    overrides.look()
    overrides.look()
    assert overrides.settings("main").mode == "human" and overrides.settings("oven").mode == "partial"
    (event,) = changes(store)
    assert (event.name, event.station) == ("station_changed", "main")
    assert event.detail == "mode partial → human, by anna at the device"
    assert (event.data["mode"], event.data["mode_before"], event.data["held_at_device"]) == ("human", "partial", True)
    assert taken_switch(store, "main") == HELD.model_dump_json()


def test_what_is_held_at_the_device_the_cloud_does_not_change(store: Store) -> None:
    overrides = StationOverrides(OWN, store, "boot")
    set_switch(store, "main", HELD)
    overrides.look()
    overrides.apply({"main": DesiredStation(mode="full", policy={"pass_max": 0.01})})
    assert overrides.settings("main").mode == "human"
    assert overrides.settings("main").policy_overrides == {"pass_max": 0.01}, "numbers are not held"
    set_switch(store, "main", Switch(by="anna", at_ms=8))
    overrides.look()
    assert overrides.settings("main").mode == "full", "given back to what the cloud has said meanwhile"
    assert [event.data["by"] for event in changes(store)] == ["anna at the device", "the cloud", "anna at the device"]


def test_switch_survives_a_restart_and_is_not_told_again(store: Store) -> None:
    set_switch(store, "main", HELD)
    StationOverrides(OWN, store, "boot").look()
    before = len(changes(store))
    again = StationOverrides(OWN, store, "boot-2")
    again.look()
    assert again.settings("main").mode == "human" and len(changes(store)) == before


def test_acknowledgement_reaches_the_station_and_changes_no_mode(store: Store) -> None:
    overrides = StationOverrides(OWN, store, "boot")
    set_switch(store, "main", Switch(acknowledged="41", by="anna"))
    overrides.look()
    assert overrides.settings("main").acknowledged == "41" and overrides.settings("main").mode == "partial"
    assert changes(store) == []


def test_damaged_switch_is_none(store: Store) -> None:
    store.set_meta(f"{SWITCH_META}main", '{"mode": "flying"}')
    assert read_switch(store, "main") == Switch()
    assert StationOverrides(OWN, store, "boot").settings("main").mode == "partial"


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([None, *MODES])), max_size=20))
def test_mode_is_the_devices_else_the_clouds_else_the_configs(steps: list[tuple[bool, Mode | None]]) -> None:
    store = Memory()
    overrides = StationOverrides(OWN, store, "boot")  # type: ignore[arg-type]
    here: Mode | None = None
    cloud: Mode | None = None
    for number, (at_device, mode) in enumerate(steps):
        if at_device:
            here = mode
            set_switch(store, "main", Switch(mode=mode, at_ms=number))
            overrides.look()
        else:
            cloud = mode
            overrides.apply({"main": DesiredStation(mode=mode)})
        assert overrides.settings("main").mode == (here or cloud or "partial")
    told = [data["mode"] for data in store.told]
    assert all(one != other for one, other in zip(["partial", *told], told, strict=False)), "each switch once"


class Memory:
    """Small facts and events, kept in memory."""

    def __init__(self) -> None:
        self.meta: dict[str, str] = {}
        self.told: list[dict[str, str]] = []

    def get_meta(self, key: str) -> str | None:
        return self.meta.get(key)

    def set_meta(self, key: str, value: str) -> None:
        self.meta[key] = value

    def append_event(self, name: str, *, data: dict[str, str], **_: object) -> None:
        self.told.append(data)
