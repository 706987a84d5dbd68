"""Whether the control plane is reached, since when, and if not, why: kept in the record, for all who show it.

Rules:
- Written when it changes, so that a state that stays costs nothing and the terminal shows it without the daemon's help.
- "Connected" is the broker's word. Whether the control plane stores what comes is seen by what is unsent.
- How long it has been away outlives a restart of the daemon.
"""

import contextlib
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from edge.clock import Clock
from edge.errors import StoreError

LINK_META = "link"
"""Where it lies in the store."""
STOPPED = "the daemon does not run"
DAY_MS = 86_400_000


class MetaStore(Protocol):
    """Where small facts lie."""

    def get_meta(self, key: str) -> str | None: ...

    def set_meta(self, key: str, value: str) -> None: ...


class LinkState(BaseModel):
    """How it stands with the control plane."""

    model_config = ConfigDict(frozen=True)

    connected: bool
    since_ms: int
    """Wall clock of the last change between connected and not."""
    problem: str | None = None
    """Why it is not connected, in words."""


class LinkBook:
    """Writes the state down. Used by one thread."""

    def __init__(self, store: MetaStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._known = read_link(store)

    def note(self, problem: str | None) -> None:
        """Take note of why there is no connection, None if there is one."""
        known, connected = self._known, problem is None
        if known is not None and (known.connected, known.problem) == (connected, problem):
            return
        since_ms = known.since_ms if known is not None and known.connected == connected else self._clock.now_ms()
        now = LinkState(connected=connected, since_ms=since_ms, problem=problem)
        # Without room on disk it is tried again at the next look.
        with contextlib.suppress(StoreError):
            self._store.set_meta(LINK_META, now.model_dump_json())
            self._known = now


def read_link(store: MetaStore) -> LinkState | None:
    """Return the state as it was written last, None if there is none that can be read."""
    saved = store.get_meta(LINK_META)
    try:
        return LinkState.model_validate_json(saved) if saved else None
    except ValidationError:
        return None


def link_words(state: LinkState | None, now_ms: int) -> str:
    """Return the state for people."""
    if state is None:
        return "control plane not reached yet"
    since = _when(state.since_ms, now_ms)
    if state.connected:
        return f"connected since {since}"
    return f"AWAY since {since}: {state.problem}"


def _when(at_ms: int, now_ms: int) -> str:
    at = datetime.fromtimestamp(at_ms / 1000).astimezone()  # the local time: whoever reads it stands beside the box
    return f"{at:%H:%M:%S}" if abs(now_ms - at_ms) < DAY_MS else f"{at:%Y-%m-%d %H:%M}"
