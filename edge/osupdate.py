"""Replaces the operating system: into the other slot, tried, confirmed by this daemon's own health, or left again.

Rules:
- Before a system can be started: signature (TUF), digest as it lies in the slot, version not below the floor, profile,
  size, kernel and initrd compared as they lie on the boot partition.
- The book is written first, then what it says is done: a cut in between is made up for at the next start.
- A system that is tried is judged here, by whether stations decide as they did before it; the network has no part in
  it. If this daemon cannot start, the watch outside of it and the boot chain's count bring the old one back.
- The slot of the system to go back to is not written while another one is on trial.
"""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from edge import osimage, osrules, slots
from edge.clock import Clock
from edge.errors import LinkError, StoreError, UpdateError
from edge.osrules import Quiet
from edge.osslots.interface import OTHER, OsSlots
from edge.slotfile import SlotFile
from edge.wire.base import BundleRef, version_key
from edge.wire.messages import OsReport
from edge.wire.osimage import OsManifest

LOOK_S = 1.0
RETRY_MIN_S, RETRY_MAX_S = 1.0, 120.0
SETTLE_S = 3.0
"""Between making a system startable and the earliest restart: the report that says so leaves first."""
WATCH_SLACK_S = 60.0
"""The watch outside of the daemon waits so much longer: who can say why says it."""
AGAIN_S = 300.0
"""A restart that nobody carried out is asked for again."""
_TROUBLE = "os_trouble_before"

Fetch = Callable[[BundleRef, BinaryIO], Awaitable[None]]
"""Brings the signed system to an open slot; raises UpdateError, LinkError or StoreError."""
Tell = Callable[[str, Any, str, dict[str, Any]], None]


class Meta(Protocol):
    """Small values of the record."""

    def get_meta(self, key: str) -> str | None: ...

    def set_meta(self, key: str, value: str) -> None: ...


@dataclass(frozen=True)
class Rules:
    """How a system is tried."""

    tries: int
    probation_s: float
    deadline_s: float
    quiet: Quiet


@dataclass(frozen=True)
class Line:
    """What the stations do, as far as a system is judged by it."""

    decisions: Callable[[], int]
    """Made since the daemon started."""
    trouble: Callable[[], dict[str, str]]
    """What keeps stations from deciding, by their name."""


class Systems:
    """The operating systems of a device. Belongs to the daemon's event loop."""

    def __init__(
        self,
        name: str,
        profile: str,
        os_slots: OsSlots,
        book: SlotFile,
        rules: Rules,
        line: Line,
        meta: Meta,
        clock: Clock,
        tell: Tell,
        fetch: Fetch | None,
    ) -> None:
        self.name = name
        self.slot_file = book
        self._profile = profile
        self._slots = os_slots
        self._rules = rules
        self._line = line
        self._meta = meta
        self._clock = clock
        self._tell = tell
        self._fetch = fetch
        self._running = os_slots.running
        self._other = OTHER[self._running.slot]
        self._wanted: tuple[BundleRef | None, BundleRef | None] = (None, None)
        self._asked = asyncio.Event()
        self._began_s = self._well_since_s = clock.monotonic_s()
        self._ready_s: float | None = None
        """Since when another system is ready to be started."""
        self._restart_asked_s: float | None = None
        self._urgent = False
        self._seen = (line.decisions(), clock.monotonic_s())
        self._problem: str | None = None
        self._waits: str | None = None
        self._well = self._stranded = False
        self.refuse: Callable[[BundleRef, str], None] = lambda _ref, _reason: None
        """Is told what is not taken, and why."""
        self.changed: Callable[[], None] = lambda: None
        """Is told that the report would be different."""

    def settle(self) -> None:
        """Find out which start this is, and draw the conclusions; once, before anything else.

        Raises:
            StoreError: the book or the boot partition cannot be written.
        """
        self._count_start()
        found = self._situation()
        if found == "first":
            self.slot_file.change(lambda b, now: slots.preloaded(b, self._running.ref, now))
            found = "settled"
        if found == "left":
            found = self._came_back()
        running = _words(self._running.ref)
        if found == "on_trial":
            self._tell("os_trial", "info", f"{running} runs on trial, in slot {self._running.slot}", self._data())
        elif found == "waiting":
            self._begin_wait(urgent=self._book.state(self._running.ref.digest) == "bad")
            self._tell("os_waiting", "info", f"{running} runs; {_words(self._target.ref)} is to be started", {})
        else:
            self._slots.watch_trial(None)
            tries = self._slots.tries(self._other)
            if tries is not None and tries.left is not None and not self._stranded:
                self._slots.close_off(self._other)  # of a trial that was taken back just before a cut
            self._tell("os_runs", "info", f"{running} runs, in slot {self._running.slot}", self._data())

    def want(self, active: BundleRef | None, candidate: BundleRef | None) -> None:
        """Say which system should run, and which should be ready; taken up by `run`."""
        if (active, candidate) != self._wanted:
            self._wanted = (active, candidate)
            self._asked.set()

    def report(self) -> OsReport:
        """Return what a report says of the system."""
        ref, slot = self._running.ref, self._running.slot
        return OsReport(model=self.name, serving=ref, slot=slot, waits_for=self._waits, problem=self._problem)

    async def run(self) -> None:
        """Bring what is wanted, and watch what runs, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._bring_for_ever(), name="os update")
            tasks.create_task(self._look_for_ever(), name="os watch")

    async def _bring_for_ever(self) -> None:
        pause_s = RETRY_MIN_S
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self.bring()
                pause_s = RETRY_MIN_S
                continue
            except (LinkError, StoreError) as error:
                self._tell("os_update_waiting", "warning", str(error), {})
            wait_s = pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            pause_s = min(pause_s * 2, RETRY_MAX_S)
            self._later(wait_s)

    async def bring(self) -> None:
        """Do what is wanted, as far as it can be done now.

        Raises:
            LinkError, StoreError: something kept it from being done; another call goes on.
        """
        active, candidate = self._wanted
        if active is not None and not self._is_target(active):
            await self._serve(active)
        if candidate is not None and not self._is_target(candidate) and candidate.digest != self._running.ref.digest:
            await self._stage(candidate)
        self.changed()

    async def _serve(self, ref: BundleRef) -> None:
        if self._book.trial is not None and ref.digest == self._book.current:
            self._ask_back()
            return
        if self._slots.startable(self._other) == ref and self._book.state(ref.digest) == "good":
            self._activate(ref)  # the one before: it lies untouched where it ran
        elif await self._stage(ref):
            self._activate(ref)

    def _ask_back(self) -> None:
        trial = self._book.trial
        assert trial is not None
        self.slot_file.change(slots.withdrawn)
        self._tell("os_withdrawn", "info", f"{_words(trial.ref)}: asked back", {})
        if trial.ref.digest == self._running.ref.digest:
            self._begin_wait(urgent=True)
        else:
            self._slots.close_off(self._other)
            self._slots.watch_trial(None)
            self._ready_s = self._waits = None

    async def _stage(self, ref: BundleRef) -> bool:
        """Have the proven system in the other slot; False if it is refused."""
        if self._book.trial is not None and self._book.trial.ref.digest == self._running.ref.digest:
            raise LinkError(f"{_words(ref)} waits for the verdict on {_words(self._running.ref)}, which is on trial")
        try:
            self._acceptable(ref)
            if self._book.state(ref.digest) != "staged" or not await asyncio.to_thread(self._in_place, ref):
                await self._put_in_place(ref)
        except UpdateError as error:
            self.refuse(ref, str(error))
            return False
        if self._book.state(ref.digest) == "empty":
            self.slot_file.change(lambda b, now: slots.downloaded(b, ref, now))
        self._tell("os_staged", "info", f"{_words(ref)} lies in slot {self._other}", {"bundle": ref.model_dump()})
        return True

    async def _put_in_place(self, ref: BundleRef) -> None:
        if self._fetch is None:
            raise UpdateError("this device has no trust root: it takes no new systems", hint="set cloud.root")
        self._free_other()
        with self._slots.open_other(writable=True) as device:
            await self._fetch(ref, device)
        await asyncio.to_thread(self._place_boot_files, ref)

    def _free_other(self) -> None:
        """Give up what lies in the other slot, in the book first."""
        self.slot_file.change(slots.withdrawn)
        if not self._is_target(self._running.ref):
            if self._book.state(self._running.ref.digest) != "good":
                raise LinkError(f"{_words(self._target.ref)} is to be started first")
            self.slot_file.change(lambda b, now: slots.activated(b, self._running.ref, now))
        self._ready_s = self._waits = None
        self._slots.watch_trial(None)
        self._slots.close_off(self._other)

    def _place_boot_files(self, ref: BundleRef) -> None:
        with self._slots.open_other(writable=False) as device, osimage.opened(device, ref) as image:
            if image.manifest.profile != self._profile:
                raise UpdateError(f"made for {image.manifest.profile}, this device is {self._profile}")
            for name in sorted(image.manifest.files):
                self._slots.put_boot_file(name, image.member(name))
            wrong = self._wrong_boot_file(image.manifest)
        if wrong is not None:
            raise StoreError(f"{wrong} on the boot partition is not what was written", hint="the medium may fail")

    def _in_place(self, ref: BundleRef) -> bool:
        """Whether the other slot holds this system, proven byte by byte."""
        try:
            with self._slots.open_other(writable=False) as device:
                if osimage.digest_of(device, ref.size_bytes) != ref.digest:
                    return False
                with osimage.opened(device, ref) as image:
                    return self._wrong_boot_file(image.manifest) is None
        except (UpdateError, StoreError, OSError):
            return False

    def _wrong_boot_file(self, manifest: OsManifest) -> str | None:
        for name, entry in sorted(manifest.files.items()):
            with self._slots.boot_file(name) as file:
                if osimage.digest_of(file, entry.size_bytes) != entry.digest or file.read(1):
                    return name
        return None

    def _activate(self, ref: BundleRef) -> None:
        self.slot_file.change(lambda b, now: slots.activated(b, ref, now))
        self._begin_wait()

    def _begin_wait(self, *, urgent: bool = False) -> None:
        """Make the system that should run startable, unless it is, and wait for a good moment."""
        ref = self._target.ref
        tries = self._slots.tries(self._other)
        if self._slots.startable(self._other) != ref or tries is None or tries.left is None:
            self._meta.set_meta(_TROUBLE, json.dumps(sorted(self._line.trouble())))
            self._slots.watch_trial(self._rules.deadline_s + WATCH_SLACK_S)
            self._slots.arm(ref, self._rules.tries)
        self._ready_s, self._urgent = self._clock.monotonic_s(), urgent
        self.changed()

    async def _look_for_ever(self) -> None:
        while True:
            try:
                self.look()
            except StoreError as error:
                self._problem = str(error)
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Look after what runs: its probation, or the restart into another one.

        Raises:
            StoreError: the disk does not take it; the next look tries again.
        """
        trial = self._book.trial
        if trial is not None and trial.ref.digest == self._running.ref.digest:
            self._judge()
        elif self._stranded or self._book.state(self._running.ref.digest) == "good":
            self._say_well()
        if self._ready_s is not None:
            self._restart_when_quiet()

    def _judge(self) -> None:
        now_s = self._clock.monotonic_s()
        before = set(json.loads(self._meta.get_meta(_TROUBLE) or "[]"))
        trouble = {name: words for name, words in self._line.trouble().items() if name not in before}
        if trouble:
            self._well_since_s = now_s
        if now_s - self._well_since_s >= self._rules.probation_s:
            self._confirm()
        elif now_s - self._began_s >= self._rules.deadline_s:
            words = "; ".join(f"{name}: {words}" for name, words in sorted(trouble.items())) or "no station was steady"
            self._leave(f"not well within {self._rules.deadline_s:g} s: {words}")

    def _confirm(self) -> None:
        """Confirmed with the boot chain first: a cut after it costs a probation, one before it never a good system."""
        self._slots.confirm()
        self.slot_file.change(slots.served)
        self._slots.watch_trial(None)
        self._say_well()
        self._problem = None
        self._tell("os_confirmed", "info", f"{_words(self._running.ref)} has lasted its probation", self._data())
        self.changed()
        self._asked.set()

    def _leave(self, reason: str) -> None:
        ref = self._running.ref
        after = self.slot_file.change(lambda b, now: slots.breached(b, ref, reason, now))
        self._note_failure(ref, reason, after.serving)
        self._begin_wait(urgent=True)

    def _count_start(self) -> None:
        """Count a start of the daemon; a system on trial that has seen too many is left."""
        trial = self._book.trial
        after = self.slot_file.change(slots.started)
        failed = after.slot(trial.ref.digest) if trial else None
        if failed is not None and failed.state == "bad":
            self._note_failure(failed.ref, failed.reason or "", after.serving)

    def _came_back(self) -> osrules.Situation:
        """Another system had its starts in vain: note why, and go on with this one."""
        target, tries = self._target, self._slots.tries(self._other)
        starts = tries.done if tries else 0
        reason = osrules.reason_left(self._slots.why_left(), starts)
        after = self.slot_file.change(lambda b, now: slots.breached(b, target.ref, reason, now))
        self._note_failure(target.ref, reason, after.serving)
        self._stranded = not self._is_target(self._running.ref)  # the one that should run does not start any more
        if not self._stranded:
            self._slots.close_off(self._other)
        return "settled"

    def _note_failure(self, ref: BundleRef, reason: str, serving: slots.Slot | None) -> None:
        self._problem = f"{_words(ref)}: {reason}"
        back = _words(serving.ref) if serving else "none"
        self._tell("os_failed", "alarm", f"{self._problem}; back to {back}", {"bundle": ref.model_dump()})

    def _say_well(self) -> None:
        if not self._well:
            self._slots.confirm()
            self._slots.say_well()
            self._well = True

    def _restart_when_quiet(self) -> None:
        now_s = self._clock.monotonic_s()
        assert self._ready_s is not None
        if self._restart_asked_s is not None and now_s - self._restart_asked_s < AGAIN_S:
            return
        decisions, _ = self._seen
        if self._line.decisions() != decisions:
            self._seen = (self._line.decisions(), now_s)
        waited_s = now_s - self._ready_s
        words = None if waited_s >= SETTLE_S else "its report"
        if words is None and not self._urgent:
            local = time.localtime(self._clock.now_ms() / 1000)
            words = osrules.waits_for(
                self._rules.quiet,
                minute_of_day=local.tm_hour * 60 + local.tm_min,
                idle_s=now_s - self._seen[1],
                waited_s=waited_s,
            )
        if words != self._waits:
            self._waits = words
            self.changed()
        if words is None:
            self._tell("os_restart", "info", f"restarts into {_words(self._target.ref)}", {})
            self._restart_asked_s = now_s
            self._slots.restart()

    def _acceptable(self, ref: BundleRef) -> None:
        if ref.name != self.name:
            raise UpdateError(f"expected a system called {self.name}, got {ref.name}")
        slot, floor = self._book.slot(ref.digest), self._book.floor
        if slot is not None and slot.state == "bad":
            raise UpdateError(f"it failed on this device before: {slot.reason}")
        if slot is None and floor is not None and version_key(ref.version) < version_key(floor):
            raise UpdateError(f"version {ref.version} is below {floor}, which the device was set up with")
        if ref.size_bytes > self._slots.capacity_bytes:
            raise UpdateError(f"{ref.size_bytes} bytes, the slot has {self._slots.capacity_bytes}")

    def _situation(self) -> osrules.Situation:
        return osrules.situation(self._book, self._running.ref.digest, self._slots.tries(self._other))

    def _is_target(self, ref: BundleRef) -> bool:
        return self._book.serving is not None and self._book.serving.ref.digest == ref.digest

    def _later(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._asked.set)

    @property
    def _book(self) -> slots.Book:
        return self.slot_file.book

    @property
    def _target(self) -> slots.Slot:
        assert self._book.serving is not None
        return self._book.serving

    def _data(self) -> dict[str, Any]:
        return {"bundle": self._running.ref.model_dump(), "slot": self._running.slot}


def _words(ref: BundleRef) -> str:
    return f"{ref.name} {ref.version}"
