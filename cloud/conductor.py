"""Applies the rule of rollouts: looks every second, keeps what was decided, and tells the devices.

Rules:
- State, log and the devices' desired states are one transaction; they are published after it. After a crash the
  link publishes all desired states again, so nothing decided is ever half done.
- What a rollout wants of its devices is derived from its state at every look, not from the last decision: a desired
  state that differs is set right.
- If a person moved the rollout between reading and writing, the look is thrown away; the next one sees the change.
- A look is followed by rest, twenty times its length but two seconds at most: gates may be looked at as seldom as one
  likes, but a bad version waits for the next look.
- Going back needs no download: the desired state names the bundle that the device still has in its other slot.
"""

import asyncio
import logging
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from cloud import audit
from cloud.errors import CloudError
from cloud.evidence import EvidenceReader
from cloud.fleet import DeviceView
from cloud.rollout_book import RolloutRecord, load, open_rollouts, save, set_desired
from cloud.rollout_state import UNLOGGED, Decision, Finished, Paused, RolledBack
from cloud.rollouts import decide_all
from cloud.services import Services

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between two looks: a bad version should not serve longer than it takes to see that it is bad."""
IDLE_FACTOR = 20.0
"""A look that takes long is followed by so many times its length of rest."""
MAX_REST_S = 2.0
"""Of the ten seconds within which a thousand devices are back, no more than this may be spent on rest."""


class Conductor:
    """Moves rollouts forward and back. One per control plane."""

    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._clock = services.clock
        self._fleet = services.fleet
        self._registry = services.registry
        self._reader = EvidenceReader()
        self._seat = services.seat

    async def run(self) -> None:
        """Look until cancelled; of several copies, only the one that has the seat."""
        try:
            while True:
                before_s = self._clock.monotonic_s()
                try:
                    await asyncio.to_thread(self.look)
                except (CloudError, SQLAlchemyError):
                    log.exception("a look at the rollouts failed; the next one tries again")
                took_s = self._clock.monotonic_s() - before_s
                await asyncio.sleep(max(LOOK_S, min(IDLE_FACTOR * took_s, MAX_REST_S)))
        finally:
            self._seat.leave()

    def look(self) -> list[Decision]:
        """Look at every open rollout once; return what was decided, nothing if another copy has the seat."""
        if not self._seat.hold():
            return []
        with self._store.read() as connection:
            records = open_rollouts(connection)
        if not records:
            return []
        devices = self._fleet.devices()
        made: list[Decision] = []
        for record in records:
            try:
                made += self._conduct(record, devices)
            except (CloudError, SQLAlchemyError, ValidationError):
                log.exception("rollout %s could not be looked at; the next look tries again", record.id)
        return made

    def _conduct(self, record: RolloutRecord, devices: list[DeviceView]) -> list[Decision]:
        now_ms = self._clock.now_ms()
        with self._store.read() as connection:
            evidence = self._reader.collect(connection, record.plan, record.state, devices, now_ms)
        state, made = decide_all(record.plan, record.state, evidence, now_ms)
        if any(isinstance(decision, Finished) for decision in made):
            self._make_default(record)
        with self._store.write() as connection:
            self._seat.check(connection)
            if load(connection, record.id, lock=True).state != record.state:
                return []
            save(connection, state, made, now_ms)
            _audit(connection, {"rollout": record.id, **self._seat.mark()}, made, now_ms)
            changed = set_desired(connection, self._fleet, state)
        self._fleet.publish(changed)
        for decision in made:
            if decision.reason:
                log.info("%s: %s: %s", record.id, decision.step, decision.reason)
        return made

    def _make_default(self, record: RolloutRecord) -> None:
        """Give the version to devices that enrol later, if the rollout was meant for every device."""
        if record.plan.cohort.everyone:
            why = f"rollout {record.id} reached every device"
            self._registry.set_default(
                record.plan.model,
                record.plan.version,
                who=audit.CONDUCTOR,
                why=why,
                unaudited="its rollout was allowed",
            )


def _audit(connection: Connection, data: dict[str, Any], made: list[Decision], now_ms: int) -> None:
    for decision in made:
        # With several copies every step names who made it, so that the log shows that there was one at a time.
        if isinstance(decision, RolledBack | Finished | Paused) or ("term" in data and decision.step not in UNLOGGED):
            what = f"rollout_{decision.step}"
            audit.record(connection, at_ms=now_ms, who=audit.CONDUCTOR, what=what, why=decision.reason, data=data)
