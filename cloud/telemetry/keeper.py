"""Keeps telemetry in order while the control plane runs: adds up, looks for drift, lets go of what is old.

Rules:
- Adding up goes before: drift is looked for in what is added up, once every hour has settled and whenever the backlog
  of a device has come in.
- A look that fails is told and made again; none of it stops ingest.
"""

import asyncio
import logging

from sqlalchemy.exc import SQLAlchemyError

from cloud.clock import Clock
from cloud.config import CloudConfig
from cloud.seat import Seat
from cloud.store import CloudStore
from cloud.telemetry.drift import SETTLE_MS, DriftWatch
from cloud.telemetry.rollups import Rollups
from cloud.telemetry.windows import floor_ms

log = logging.getLogger(__name__)

LOOK_EVERY_MS = 60_000
LET_GO_EVERY_MS = 3_600_000


class TelemetryKeeper:
    """Does what is due. One per control plane."""

    def __init__(self, store: CloudStore, clock: Clock, config: CloudConfig) -> None:
        self.rollups = Rollups(store, clock, config.telemetry)
        self.drift = DriftWatch(store, clock, config.drift)
        self._clock = clock
        self._config = config.telemetry
        self._looked_ms = self._let_go_ms = 0
        self._settled_ms: int | None = None

    async def run(self, seat: Seat) -> None:
        """Do what is due until cancelled, while this copy has the seat."""
        while True:
            try:
                more = seat.is_ours and await asyncio.to_thread(self.turn)
            except (SQLAlchemyError, ValueError):
                log.exception("telemetry could not be added up or looked at; the next turn tries again")
                more = False
            await asyncio.sleep(0.05 if more else self._config.roll_every_s)

    def turn(self) -> bool:
        """Do what is due now; return whether more waits to be added up."""
        now_ms = self._clock.now_ms()
        more = self.rollups.roll() >= self._config.roll_rows
        if not more and abs(now_ms - self._looked_ms) >= LOOK_EVERY_MS:
            self._look(now_ms)
            self._looked_ms = now_ms
        if not more and abs(now_ms - self._let_go_ms) >= LET_GO_EVERY_MS:
            self.rollups.let_go()
            self._let_go_ms = now_ms
        return more

    def _look(self, now_ms: int) -> None:
        settled_ms, late = floor_ms(now_ms - SETTLE_MS, 3600), self.rollups.take_late()
        if settled_ms != self._settled_ms:
            self.drift.look()
            self._settled_ms = settled_ms
        elif late:
            self.drift.look(sorted(late))
