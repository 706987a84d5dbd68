"""Says what changed about the consent of those who are heard, also over restarts, and what becomes of what was kept.

Rules:
- Withdrawn consent holds from the next window on; what was kept before stays until somebody erases it, and the event
  says how.
- That a station begins without consent is no news; that it lost or got it is.
"""

from collections.abc import Mapping
from typing import Protocol

from edge.observe import EventSink
from edge.overrides import MetaStore

CONSENT_META = "consent."
"""Where the last known consent lies in the store, the station's name behind it."""


class ConsentStore(EventSink, MetaStore, Protocol):
    """The part of the store that is needed here."""


def tell_changes(store: ConsentStore, agreed: Mapping[str, bool], boot_id: str) -> None:
    """Record which stations lost or got consent since the last call.

    Raises:
        StoreError: it was not recorded; the next call tells it.
    """
    for station, now in agreed.items():
        known, word = store.get_meta(CONSENT_META + station), "yes" if now else "no"
        if known == word:
            continue
        if known is not None:
            detail = "sound is kept, sent and shown again as the station says" if now else _withdrawn(station)
            name = "sound_consent_given" if now else "sound_consent_withdrawn"
            store.append_event(
                name, boot_id=boot_id, severity="info" if now else "warning", station=station, detail=detail
            )
        store.set_meta(CONSENT_META + station, word)


def _withdrawn(station: str) -> str:
    erase = f"lineside-edge forget --before now --station {station}"
    return f"no sound is kept, sent or shown from the next window on; what was kept before stays until: {erase}"
