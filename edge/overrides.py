"""What the cloud has changed at the stations: mode and policy numbers, kept so that a restart keeps them.

Rules:
- A change is on record (an event) and takes effect at the next window.
- What the cloud does not name is as the device's own config says.
"""

import threading
from typing import Any, Protocol

from edge.observe import EventSink
from edge.values import StationSettings
from edge.wire.base import WireModel
from edge.wire.messages import DesiredStation

_META = "station_overrides"


class OverrideStore(EventSink, Protocol):
    """The part of the store that is needed here."""

    def get_meta(self, key: str) -> str | None: ...

    def set_meta(self, key: str, value: str) -> None: ...


class StationOverrides:
    """The settings of every station, the cloud's changes applied. Read from any thread."""

    def __init__(self, own: dict[str, StationSettings], store: OverrideStore, boot_id: str) -> None:
        self._own = own
        self._store = store
        self._boot_id = boot_id
        self._lock = threading.Lock()
        self._now = dict(own)
        saved = store.get_meta(_META)
        if saved:
            self._now = self._applied(_Saved.model_validate_json(saved).stations)

    def settings(self, station: str) -> StationSettings:
        """Return what holds at this station now."""
        return self._now[station]

    def apply(self, wanted: dict[str, DesiredStation]) -> None:
        """Make the cloud's wishes hold from the next window on, and record what changed."""
        with self._lock:
            before, after = self._now, self._applied(wanted)
            if before == after:
                return
            self._store.set_meta(_META, _Saved(stations=wanted).model_dump_json())
            self._now = after
        for station in after:
            if before[station] != after[station]:
                self._tell(station, before[station], after[station])

    def _applied(self, wanted: dict[str, DesiredStation]) -> dict[str, StationSettings]:
        return {name: _with(own, wanted.get(name)) for name, own in self._own.items()}

    def _tell(self, station: str, before: StationSettings, after: StationSettings) -> None:
        data: dict[str, Any] = {
            "mode": after.mode,
            "mode_before": before.mode,
            "policy": after.policy_overrides,
            "policy_before": before.policy_overrides,
        }
        detail = f"mode {before.mode} → {after.mode}" if before.mode != after.mode else "policy numbers changed"
        self._store.append_event(
            "station_changed", boot_id=self._boot_id, severity="info", station=station, detail=detail, data=data
        )


class _Saved(WireModel):
    stations: dict[str, DesiredStation]


def _with(own: StationSettings, wanted: DesiredStation | None) -> StationSettings:
    if wanted is None:
        return own
    return StationSettings(
        station=own.station,
        mode=wanted.mode or own.mode,
        audit_share=own.audit_share,
        deadline_ms=own.deadline_ms,
        defer_budget_per_h=own.defer_budget_per_h,
        policy_overrides={**own.policy_overrides, **wanted.policy},
    )
