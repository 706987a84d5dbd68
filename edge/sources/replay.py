"""The kept inputs of an earlier record, in their order: the same parts once more, for another bundle or another mode.

Rules:
- The record is only read; it may be another device's, or this one's own while it runs.
- A decision whose input was not kept is passed over and counted; it is told at the end.
"""

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge.errors import SourceError, StoreError
from edge.settings import read_settings
from edge.sources.files import decode_window
from edge.sources.interface import News
from edge.sources.pace import Pace
from edge.sources.settings import ReplaySettings
from edge.store import Store
from edge.values import Window
from edge.wire.rows import DecisionRow

if TYPE_CHECKING:
    from edge.clock import Clock
    from edge.sources import Seen

_PAGE_ROWS = 200


class ReplaySource:
    """Gives one window per kept input. Used by one thread."""

    kind = "replay"

    def __init__(self, settings: ReplaySettings, seen: "Seen", clock: "Clock") -> None:
        """Open the record.

        Raises:
            SourceError: there is none, or it cannot be read.
        """
        self._settings, self._seen, self._clock = settings, seen, clock
        try:
            self._store: Store | None = Store.open_read_only(settings.path, clock=clock)
        except StoreError as error:
            raise SourceError(f"{settings.path}: {error}", hint="name the record of a device") from error
        self._pace = Pace(settings.rate_per_s, clock)
        self._after = settings.after_seq
        self._page: deque[DecisionRow] = deque()
        self._at_end = False
        self._passed_over = 0
        self._turn_page()

    def read(self, wait_s: float) -> Window | None:
        until_s = self._clock.monotonic_s() + wait_s
        if self._store is None:
            raise SourceError(f"{self._settings.path}: the source is closed", retry=False)
        if not self._pace.wait(until_s):
            return None
        while self._page:
            window = self._window(self._store, self._page.popleft())
            if not self._page:
                self._turn_page()
            if window is not None:
                self._pace.took()
                return window
            if self._clock.monotonic_s() >= until_s:
                return None
        return None

    @property
    def exhausted(self) -> bool:
        return self._store is None or not self._page

    @property
    def problem(self) -> str | None:
        return None

    def news(self) -> list[News]:
        """Return, once at the end, how many inputs there were not."""
        count = self._passed_over if self.exhausted else 0
        if not count:
            return []
        self._passed_over = 0
        detail = f"{count} decisions were passed over: their inputs were not kept"
        return [News("replay_incomplete", detail, "warning", {"count": count})]

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _window(self, store: Store, decision: DecisionRow) -> Window | None:
        key = f"{store.incarnation}:{decision.seq}"
        if self._seen(key):
            return None
        try:
            kept = store.inputs.get(decision.input.digest)
        except StoreError as error:
            raise SourceError(f"{self._settings.path}: {error}") from error
        if kept is None:
            self._passed_over += 1
            return None
        raw, media_type = kept
        return decode_window(raw, name=decision.input.name, source=self.kind, media_type=media_type, key=key)

    def _turn_page(self) -> None:
        """Read on until there is something to replay, or nothing more."""
        assert self._store is not None
        wanted = self._settings
        while not self._page and not self._at_end:
            try:
                rows = self._store.rows(self._after, kind="decision", limit=_PAGE_ROWS)
            except StoreError as error:
                raise SourceError(f"{wanted.path}: {error}") from error
            self._at_end = len(rows) < _PAGE_ROWS
            self._after = rows[-1].seq if rows else self._after
            self._page.extend(
                row
                for row in rows
                if isinstance(row, DecisionRow)
                and wanted.station in (None, row.station)
                and wanted.verdict in (None, row.verdict)
            )


def open_source(settings: Mapping[str, Any], *, seen: "Seen", clock: "Clock") -> ReplaySource:
    """Open the source; its settings are `ReplaySettings`.

    Raises:
        ConfigError: a setting is unknown or wrong.
        SourceError: there is no record, or it cannot be read.
    """
    return ReplaySource(read_settings(ReplaySettings, settings, where="source replay"), seen, clock)
