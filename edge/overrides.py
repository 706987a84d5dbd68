"""What was changed at the stations, by the cloud or at the device, kept so that a restart keeps it.

Rules:
- A change is on record (an event that says by whom) and takes effect at the next window.
- A mode that was set at the device holds until it is given back there: whoever stands at the line comes first.
- What nobody names is as the device's own config says.
"""

import threading
from dataclasses import replace
from typing import Any, Protocol

from pydantic import ValidationError

from edge.observe import EventSink
from edge.values import StationSettings
from edge.wire.base import WireModel
from edge.wire.messages import DesiredStation
from edge.wire.terms import Mode

_META = "station_overrides"
SWITCH_META = "switch."
"""Where the switch at the device lies in the store, the station's name behind it."""
TAKEN_META = "switch_taken."
"""Where the daemon says which switch it goes by."""


class Switch(WireModel):
    """What a person has set at the device for one station."""

    mode: Mode | None = None
    """Holds whatever the cloud says; None: as the cloud or the config says."""
    by: str = ""
    at_ms: int = 0
    acknowledged: str | None = None
    """The stop of the line that was acknowledged last."""


class MetaStore(Protocol):
    """Where small facts lie."""

    def get_meta(self, key: str) -> str | None: ...

    def set_meta(self, key: str, value: str) -> None: ...


class OverrideStore(EventSink, MetaStore, Protocol):
    """The part of the store that is needed here."""


class StationOverrides:
    """The settings of every station, all changes applied. Read from any thread."""

    def __init__(self, own: dict[str, StationSettings], store: OverrideStore, boot_id: str) -> None:
        self._own = own
        self._store = store
        self._boot_id = boot_id
        self._lock = threading.Lock()
        saved = store.get_meta(_META)
        self._wanted = _Saved.model_validate_json(saved).stations if saved else {}
        self._switches = {name: read_switch(store, name) for name in own}
        self._now = self._applied()

    def settings(self, station: str) -> StationSettings:
        """Return what holds at this station now."""
        return self._now[station]

    def apply(self, wanted: dict[str, DesiredStation]) -> None:
        """Make the cloud's wishes hold from the next window on, and record what changed.

        Raises:
            StoreError: they could not be kept; nothing changed.
        """
        with self._lock:
            if wanted == self._wanted:
                return
            self._store.set_meta(_META, _Saved(stations=wanted).model_dump_json())
            self._wanted = wanted
            before, self._now = self._now, self._applied()
        self._tell_changes(before, "the cloud")

    def look(self) -> None:
        """Take up what was switched at the device, and record what changed.

        Raises:
            StoreError: the record cannot be read.
        """
        switches = {name: read_switch(self._store, name) for name in self._own}
        with self._lock:
            if switches == self._switches:
                return
            changed = {name: switch for name, switch in switches.items() if switch != self._switches[name]}
            self._switches = switches
            before, self._now = self._now, self._applied()
        for name, switch in changed.items():
            self._store.set_meta(TAKEN_META + name, switch.model_dump_json())
        by = next(iter(changed.values())).by or "somebody"
        self._tell_changes(before, f"{by} at the device")

    def reload(self, own: dict[str, StationSettings]) -> None:
        """Take the settings of a configuration that was read again; what cloud or device said stays above it."""
        with self._lock:
            self._own = own
            before, self._now = self._now, self._applied()
        self._tell_changes(before, "the configuration")

    def _applied(self) -> dict[str, StationSettings]:
        return {name: _with(own, self._wanted.get(name), self._switches[name]) for name, own in self._own.items()}

    def _tell_changes(self, before: dict[str, StationSettings], by: str) -> None:
        for station, after in self._now.items():
            if (before[station].mode, before[station].policy_overrides) != (after.mode, after.policy_overrides):
                self._tell(station, before[station], after, by)

    def _tell(self, station: str, before: StationSettings, after: StationSettings, by: str) -> None:
        data: dict[str, Any] = {
            "mode": after.mode,
            "mode_before": before.mode,
            "policy": after.policy_overrides,
            "policy_before": before.policy_overrides,
            "by": by,
            "held_at_device": self._switches[station].mode is not None,
        }
        detail = f"mode {before.mode} → {after.mode}" if before.mode != after.mode else "policy numbers changed"
        self._store.append_event(
            "station_changed",
            boot_id=self._boot_id,
            severity="info",
            station=station,
            detail=f"{detail}, by {by}",
            data=data,
        )


class _Saved(WireModel):
    stations: dict[str, DesiredStation]


def read_switch(store: MetaStore, station: str) -> Switch:
    """Return what was switched at the device."""
    saved = store.get_meta(SWITCH_META + station)
    try:
        return Switch.model_validate_json(saved) if saved else Switch()
    except ValidationError:
        # Damaged on disk: as the cloud or the config says is the only thing known.
        return Switch()


def taken_switch(store: MetaStore, station: str) -> str | None:
    """Return the switch that the running daemon goes by, as text."""
    return store.get_meta(TAKEN_META + station)


def set_switch(store: MetaStore, station: str, switch: Switch) -> None:
    """Leave a switch for the daemon to find.

    Raises:
        StoreError: it was not recorded.
    """
    store.set_meta(SWITCH_META + station, switch.model_dump_json())


def _with(own: StationSettings, wanted: DesiredStation | None, switch: Switch) -> StationSettings:
    now = replace(own, mode=switch.mode or (wanted.mode if wanted else None) or own.mode)
    if wanted is not None:
        now = replace(now, policy_overrides={**own.policy_overrides, **wanted.policy})
    return replace(now, acknowledged=switch.acknowledged)
