"""Power is cut at every write, sync and rename of every way that a bundle can go: afterwards a good one decides.

What was not synced is lost, or torn, or there; names survive without their data. (A kill alone finds one of seven such
mistakes: the page cache survives it.)
"""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge import files, slots
from edge.bundle import Bundle, parse
from edge.engines import Engine, EngineSettings, open_engine
from edge.serving import ProbationRules, Serving
from edge.slotfile import SlotFile
from edge.slots import MAX_STARTS, Book
from edge.wire.base import BundleRef
from edge.wire.terms import SlotState
from tests.bundles import bundle_bytes
from tests.clocks import HeldClock
from tests.faults.camera import picture
from tests.faults.plant import Device
from tests.faults.powercut import Recorder, recorded, restore, states

MODEL = "brightness"
VERSIONS = [bundle_bytes(f"1.{minor}.0") for minor in range(6)]
FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH = (parse(content).ref for content in VERSIONS)
RULES = ProbationRules(windows=1, seconds=0, max_deadline_misses=0, max_memory_bytes=2**40)
STARTED = 6
"""Distinct states after a cut that a whole daemon is started on."""


class PromisingFile(SlotFile):
    """A book of slots that tells the recorder what holds from now on."""

    def __init__(self, folder: Path, recorder: Recorder) -> None:
        super().__init__(folder, MODEL, HeldClock())
        self._recorder = recorder

    def change(self, rule: Callable[[Book, int], Book]) -> Book:
        # What is promised holds from the moment that `change` returns; what it will be may be there before.
        before = self.book
        after = rule(before, HeldClock().now_ms())
        self._recorder.promised = (before, after)
        super().change(rule)
        self._recorder.promised = (after, after)
        self._recorder.took_place()
        return after


class Box:
    """Takes bundles in and through their states."""

    def __init__(self, folder: Path, recorder: Recorder) -> None:
        self.slot_file = PromisingFile(folder, recorder)
        self.change = self.slot_file.change

    def take(self, ref: BundleRef, rule: Callable[[Book, BundleRef, int], Book]) -> None:
        content = next(content for content in VERSIONS if parse(content).ref == ref)
        files.write_atomic(self.slot_file.bundle_path(ref), content)
        self.change(lambda book, now: rule(book, ref, now))

    def activate(self, ref: BundleRef) -> None:
        self.change(lambda book, now: slots.activated(book, ref, now))

    def fail(self, ref: BundleRef) -> None:
        self.change(lambda book, now: slots.breached(book, ref, "crashed", now))

    def clean_up(self) -> None:
        self.slot_file.delete_unneeded([self.slot_file.book])


def life(box: Box) -> None:
    """Every line of the table of transitions, and every other change of the book."""
    box.take(FIRST, slots.preloaded)
    box.take(SECOND, slots.downloaded)
    box.activate(SECOND)
    box.change(slots.withdrawn)
    box.activate(SECOND)
    box.change(slots.started)
    box.change(slots.served)
    box.take(THIRD, slots.downloaded)
    box.activate(THIRD)
    box.fail(THIRD)
    box.clean_up()
    box.activate(FIRST)
    box.fail(FIRST)
    box.take(FOURTH, slots.downloaded)
    box.change(lambda book, now: slots.refused(book, FOURTH, "wrong golden outputs", now))
    box.clean_up()
    box.take(FIFTH, slots.downloaded)
    box.activate(FIFTH)
    for _ in range(MAX_STARTS + 1):
        box.change(slots.started)
    box.take(SIXTH, slots.downloaded)
    box.activate(SIXTH)
    box.change(slots.served)
    box.change(lambda book, now: slots.started(book, now, contained=False))
    box.change(slots.lasted)
    for _ in range(MAX_STARTS + 1):
        box.change(lambda book, now: slots.started(book, now, contained=False))
    box.clean_up()


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Recorder]:
    folder = tmp_path / "data"
    folder.mkdir()
    with recorded(folder, monkeypatch) as recorder:
        life(Box(folder, recorder))
    return folder, recorder


def test_life_meets_every_line_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met: set[tuple[slots.Event, str]] = set()
    real = slots.next_state

    def noted(event: slots.Event, state: SlotState) -> SlotState:
        met.add((event, state))
        return real(event, state)

    monkeypatch.setattr(slots, "next_state", noted)
    life(Box(tmp_path, Recorder()))
    assert met == set(slots.TRANSITIONS)


def test_after_a_cut_anywhere_a_good_bundle_decides_and_the_device_knows_and_says_which(
    recording: tuple[Path, Recorder], rng: random.Random
) -> None:
    folder, recorder = recording
    tried = 0
    seen: list[dict[str, bytes]] = []
    for disk, promised in recorder.moments:
        for state in states(disk, rng):
            tried += 1
            restore(folder, state, "bundles")
            slot_file = SlotFile(folder, MODEL, HeldClock())
            assert slot_file.problem is None
            assert promised is None or slot_file.book in promised, (slot_file.book, promised)
            for digest in slot_file.book.needed:
                assert (folder / "bundles" / f"{digest}.lsb").exists()
            if state not in seen:
                seen.append(state)
                _decides_and_says(slot_file)
    print(f"{tried} states after a cut, {len(seen)} of them distinct, {len(recorder.moments)} moments")
    assert tried > 400


@pytest.mark.slow
def test_daemon_started_after_a_cut_decides_with_the_bundle_that_its_book_names_and_says_so(
    recording: tuple[Path, Recorder], tmp_path: Path, rng: random.Random
) -> None:
    folder, recorder = recording
    by_book: dict[Book, dict[str, bytes]] = {}
    for disk, _ in recorder.moments:
        for state in states(disk, rng):
            restore(folder, state, "bundles")
            by_book[SlotFile(folder, MODEL, HeldClock()).book] = state
    print(f"{len(by_book)} books")
    for number, book in enumerate(rng.sample(list(by_book), STARTED)):
        restore(folder, by_book[book], "bundles")
        device = Device(tmp_path / f"box-{number}", bundle=VERSIONS[0], data=folder, durability="power")
        (device.inbox / "1.png").write_bytes(picture(220, rng))
        device.drain(60)
        # The start itself is counted, and may be the one too many.
        told = SlotFile(folder, MODEL, HeldClock()).book
        expected = told.serving.ref.version if told.serving else "1.0.0"
        (said,) = device.events("slots_read")
        assert said["model"] == MODEL and said["detail"].startswith(f"{expected} decides")
        for slot in told.slots:
            assert slot.state != "bad" or f"{slot.ref.version} failed: {slot.reason}" in said["detail"]
        assert device.events("bundle_opened")[0]["data"]["bundle"]["version"] == expected
        (decision,) = device.decisions()
        assert decision["bundle"]["version"] == expected and decision["verdict"] == "pass"
        assert device.serving() == expected


def _decides_and_says(slot_file: SlotFile) -> None:
    """Open what the book names, as a station does at its start; it must be whole and told of."""
    told: list[tuple[str, str]] = []
    serving = Serving(slot_file, _open, RULES, HeldClock(), lambda name, _, detail, __: told.append((name, detail)))
    wanted, engine = slot_file.book.serving, serving.current()
    serving.close()
    if wanted is None:
        assert engine is None and serving.problem == "no bundle yet"
        return
    assert engine is not None and engine.ref == wanted.ref
    assert wanted.state in ("good", "trial")
    assert told == [("bundle_opened", f"{MODEL} {wanted.ref.version} opened")]
    assert slots.in_words(slot_file.book).startswith(f"{wanted.ref.version} decides")


def _open(bundle: Bundle, **limits: Any) -> Engine:
    return open_engine(bundle, EngineSettings(isolation="inline"), **limits)


@pytest.mark.parametrize("forgotten", ["file", "folder"])
def test_writer_that_forgets_to_sync_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    """The disk above is of use only if it finds the mistakes that it is for."""

    def careless(path: Path, data: bytes, mode: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)

    folder = tmp_path / "data"
    folder.mkdir()
    target = "_write_synced" if forgotten == "file" else "sync_directory"
    careless_one = careless if forgotten == "file" else lambda _path: None
    with monkeypatch.context() as forgetting:
        forgetting.setattr(files, target, careless_one)
        with recorded(folder, monkeypatch) as recorder:
            life(Box(folder, recorder))
    broken = 0
    for disk, promised in recorder.moments:
        for state in states(disk, random.Random(1)):
            restore(folder, state, "bundles")
            slot_file = SlotFile(folder, MODEL, HeldClock())
            broken += slot_file.problem is not None or (promised is not None and slot_file.book not in promised)
    assert broken > 0
