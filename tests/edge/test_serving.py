"""Serving: swaps between windows, promotion after probation, and every way back."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import slots
from edge.bundle import Bundle, parse
from edge.engines import Engine, EngineSettings, open_engine
from edge.errors import ModelError
from edge.failures import FAILED_WINDOWS, FAILURES, IN_A_ROW, OF_LAST_WINDOWS
from edge.serving import (
    ALONE_EVERY_S,
    LASTS_S,
    LEAK_WITHIN_S,
    LOOK_AT_MEMORY_S,
    PROVE_WITHIN_S,
    QUICK_TO_OPEN_S,
    ProbationRules,
    Serving,
)
from edge.slotfile import SlotFile
from tests.bundles import SIDE, bundle_bytes
from tests.clocks import HeldClock

RULES = ProbationRules(windows=5, seconds=10.0, max_deadline_misses=1, max_memory_bytes=2**40)
BLACK = np.zeros((1, SIDE, SIDE, 3), np.uint8)
PICTURE = np.full((1, SIDE, SIDE, 3), 200, np.uint8)


class Bench:
    """A serving with a real book on disk and real sessions."""

    def __init__(
        self, folder: Path, isolation: Any = "inline", rules: ProbationRules = RULES, *, deadline_s: float = 5.0
    ) -> None:
        self.clock = HeldClock()
        self.told: list[str] = []
        self.words: list[str] = []
        self.isolation, self.rules, self.deadline_s = isolation, rules, deadline_s
        self.limits: list[float | None] = []
        """How long each opening was given."""
        self.opened_in_s = 0.0
        """How long opening is said to take; what it takes if 0."""
        self.own_bytes = 0
        """What the daemon itself holds, as far as the test says."""
        self.slot_file = SlotFile(folder, "brightness", self.clock)
        self.serving = Serving(self.slot_file, self.open, rules, self.clock, self.tell, lambda: self.own_bytes)

    def tell(self, name: str, severity: str, detail: str, data: dict[str, Any]) -> None:
        self.told.append(name)
        self.words.append(detail)

    def open(self, bundle: Bundle, *, within_s: float | None = None, again: Any = None) -> Engine:
        self.limits.append(within_s)
        settings = EngineSettings(isolation=self.isolation, deadline_s=self.deadline_s)
        engine = open_engine(bundle, settings, within_s=within_s, again=again)
        return replace(engine, opened_in_s=self.opened_in_s) if self.opened_in_s else engine

    def store(self, version: str, **changes: Any) -> Bundle:
        """Put a bundle's file where the device keeps it."""
        bundle = parse(bundle_bytes(version, **changes))
        self.slot_file.bundle_path(bundle.ref).write_bytes(bundle_bytes(version, **changes))
        return bundle

    def begin(self) -> Bundle:
        """Set the device up with version 1.0.0."""
        bundle = self.store("1.0.0")
        self.slot_file.change(lambda book, now: slots.preloaded(book, bundle.ref, now))
        return bundle

    def activate(self, version: str, **changes: Any) -> Bundle:
        """Do what an update does: stage, open, activate, offer."""
        bundle = self.store(version, **changes)
        self.slot_file.change(lambda book, now: slots.downloaded(book, bundle.ref, now))
        engine = self.open(bundle)
        self.slot_file.change(lambda book, now: slots.activated(book, bundle.ref, now))
        self.serving.offer(engine)
        return bundle

    def promote(self, version: str, **changes: Any) -> Bundle:
        """Give it a version and serve until its probation is over."""
        bundle = self.activate(version, **changes)
        self.window()
        self.clock.forward(self.rules.seconds)
        for _ in range(self.rules.windows):
            self.window()
        assert self.slot_file.book.current == bundle.ref.digest
        return bundle

    def fail(self, reason: str = "child died") -> str | None:
        """Fail one window; return the version that was to judge it, None if none was open."""
        engine = self.serving.current()
        if engine is not None:
            self.serving.window_failed(reason)
        return engine.ref.version if engine is not None else None

    def window(self, *, late: bool = False) -> str:
        """Serve one window; return the version that judged it."""
        engine = self.serving.current()
        assert engine is not None
        engine.session.infer(PICTURE)
        self.serving.window_served(deadline_missed=late)
        return engine.ref.version


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    bench = Bench(tmp_path)
    yield bench
    bench.serving.close()


def test_no_bundle_gives_no_engine_and_says_so(bench: Bench) -> None:
    assert bench.serving.current() is None
    assert bench.serving.problem == "no bundle yet"


def test_preloaded_bundle_is_opened_from_disk(bench: Bench) -> None:
    bench.begin()
    assert bench.window() == "1.0.0"
    assert bench.told == ["bundle_opened"]


def test_offered_bundle_decides_from_the_next_window_on_trial(bench: Bench) -> None:
    bench.begin()
    bench.window()
    bench.activate("1.1.0")
    assert bench.window() == "1.1.0"
    assert bench.slot_file.book.current != bench.serving.serving.digest  # type: ignore[union-attr]


def test_trial_is_promoted_after_windows_and_time(bench: Bench) -> None:
    bench.begin()
    bench.window()
    second = bench.activate("1.1.0")
    for _ in range(RULES.windows + 3):
        bench.window()
    assert bench.slot_file.book.trial is not None, "windows alone are not enough"
    bench.clock.forward(RULES.seconds)
    bench.window()
    assert bench.slot_file.book.current == second.ref.digest
    assert bench.told[-1] == "bundle_promoted"


def test_failing_trial_goes_back_at_once_to_the_warm_engine(bench: Bench) -> None:
    first = bench.begin()
    bench.window()
    bad = bench.activate("1.1.0")
    bench.window()
    bench.slot_file.bundle_path(first.ref).unlink()  # the way back reads nothing from disk
    bench.serving.window_failed("not a number")
    assert bench.window() == "1.0.0"
    assert bench.slot_file.book.state(bad.ref.digest) == "bad"
    assert bench.told[-2:] == ["bundle_failed", "bundle_returned"]


def test_late_trial_is_given_up(bench: Bench) -> None:
    bench.begin()
    bench.window()
    bench.activate("1.1.0")
    for _ in range(RULES.max_deadline_misses + 1):
        assert bench.window(late=True) == "1.1.0"
    assert bench.window() == "1.0.0"


def test_trial_that_takes_too_much_memory_is_given_up(tmp_path: Path) -> None:
    rules = ProbationRules(windows=50, seconds=0, max_deadline_misses=9, max_memory_bytes=1)
    bench = Bench(tmp_path, "process", rules)
    bench.begin()
    bench.window()
    bench.activate("1.1.0")
    versions = [bench.window() for _ in range(20)]
    assert versions[0] == "1.1.0" and versions[-1] == "1.0.0"
    bench.serving.close()


def test_bundle_that_grows_in_service_is_opened_anew_and_told_once(tmp_path: Path) -> None:
    rules = ProbationRules(windows=50, seconds=0, max_deadline_misses=9, max_memory_bytes=1)
    bench = Bench(tmp_path, "process", rules)
    bench.begin()
    first = [bench.window() for _ in range(5)]
    assert first == ["1.0.0"] * 5
    assert bench.told == ["bundle_opened", "bundle_failed", "bundle_opened"]
    bench.serving.close()


def test_bundle_in_service_that_leaks_soon_after_it_was_opened_gives_way(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.begin()
    bench.window()
    second = bench.promote("1.1.0")
    bench.own_bytes = RULES.max_memory_bytes + 1
    bench.clock.forward(LOOK_AT_MEMORY_S)
    assert bench.window() == "1.0.0"
    failed = bench.slot_file.book.slot(second.ref.digest)
    assert failed is not None and "the daemon has grown by" in (failed.reason or "")
    bench.serving.close()


def test_bundle_in_service_that_grew_for_long_is_opened_anew_and_stays(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.begin()
    bench.window()
    second = bench.promote("1.1.0")
    bench.clock.forward(LEAK_WITHIN_S)
    bench.own_bytes = RULES.max_memory_bytes + 1
    assert [bench.window() for _ in range(3)] == ["1.1.0"] * 3
    assert bench.slot_file.book.current == second.ref.digest
    assert bench.words[-2].endswith("opened anew") and bench.told[-1] == "bundle_opened"
    bench.serving.close()


def test_trial_inline_that_makes_the_daemon_grow_is_given_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.own_bytes = 2**41  # what it holds before is not the trial's
    bench.begin()
    bench.window()
    bench.activate("1.1.0")
    assert bench.window() == "1.1.0"
    bench.own_bytes += RULES.max_memory_bytes + 1
    bench.clock.forward(LOOK_AT_MEMORY_S)
    engine = bench.serving.current()  # also while nothing comes
    assert engine is not None and engine.ref.version == "1.0.0"
    bench.serving.close()


def test_stations_whose_trial_fails_in_the_same_moment_go_back_once_and_go_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    told: list[str] = []
    other = Serving(bench.slot_file, bench.open, RULES, bench.clock, lambda name, *_: told.append(name))
    bench.begin()
    for serving in (bench.serving, other):
        assert serving.current() is not None
    bundle = bench.activate("1.1.0")
    other.offer(bench.open(bundle))
    for serving in (bench.serving, other):
        assert serving.current() is not None
    for serving in (bench.serving, other):
        serving.window_failed("not a number")
    for serving in (bench.serving, other):
        engine = serving.current()
        assert engine is not None and engine.ref.version == "1.0.0"
    assert [*bench.told, *told].count("bundle_failed") == 1
    bench.serving.close()
    other.close()


def test_trial_that_fails_while_it_is_asked_back_is_not_held_against_it(bench: Bench) -> None:
    bench.begin()
    bench.window()
    bundle = bench.activate("1.1.0")
    assert bench.serving.current() is not None
    bench.slot_file.change(slots.withdrawn)
    bench.serving.window_failed("not a number")
    assert bench.window() == "1.0.0"
    assert bench.slot_file.book.state(bundle.ref.digest) == "staged"
    assert "bundle_failed" not in bench.told


def test_two_stations_of_one_model_end_one_trial_between_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    other = Serving(bench.slot_file, bench.open, RULES, bench.clock, lambda *_: None)
    bench.begin()
    bench.window()
    bundle = bench.activate("1.1.0")
    other.offer(bench.open(bundle))
    for serving in (bench.serving, other):
        for _ in range(RULES.windows):
            assert serving.current() is not None
            serving.window_served(deadline_missed=False)
    bench.clock.forward(RULES.seconds)
    for serving in (bench.serving, other):
        assert serving.current() is not None
        serving.window_served(deadline_missed=False)
        serving.window_served(deadline_missed=False)
    assert bench.slot_file.book.current == bundle.ref.digest and bench.slot_file.book.trial is None
    bench.serving.close()
    other.close()


def test_trial_whose_child_is_killed_goes_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "process")
    bench.begin()
    bench.window()
    bench.activate("1.1.0")
    engine = bench.serving.current()
    assert engine is not None
    os.kill(engine.session.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    with pytest.raises(ModelError) as failure:
        engine.session.infer(PICTURE)
    bench.serving.window_failed(str(failure.value))
    assert bench.window() == "1.0.0"
    bench.serving.close()


def test_current_that_fails_is_opened_again(bench: Bench) -> None:
    bench.begin()
    bench.window()
    bench.serving.window_failed("child died")
    assert bench.window() == "1.0.0"
    assert bench.told == ["bundle_opened", "bundle_opened"]


def test_current_that_fails_on_the_same_input_again_gives_way_before_the_next_window(bench: Bench) -> None:
    bench.begin()
    bench.window()
    second = bench.promote("1.1.0", kind="nan_on_black")
    engine = bench.serving.current()
    assert engine is not None
    bench.serving.window_failed("not a number", BLACK)
    assert bench.window() == "1.0.0"
    failed = bench.slot_file.book.slot(second.ref.digest)
    assert failed is not None and "fails on the same input again" in (failed.reason or "")


def test_current_that_answers_the_input_on_which_it_failed_stays(bench: Bench) -> None:
    bench.begin()
    bench.window()
    bench.promote("1.1.0", kind="nan_on_black")
    engine = bench.serving.current()
    assert engine is not None
    bench.serving.window_failed("child died", PICTURE)
    assert bench.window() == "1.1.0"


def test_current_whose_file_was_damaged_gives_way_once_it_is_to_be_opened_again(bench: Bench) -> None:
    bench.begin()
    bench.window()
    second = bench.promote("1.1.0")
    bench.slot_file.bundle_path(second.ref).write_bytes(b"damaged")
    assert bench.fail() == "1.1.0"
    assert bench.window() == "1.0.0"


def test_current_that_is_slow_to_open_gives_way_at_its_first_failure(bench: Bench) -> None:
    bench.begin()
    bench.window()
    bench.opened_in_s = QUICK_TO_OPEN_S + 1
    second = bench.promote("1.1.0")
    assert bench.fail() == "1.1.0"
    assert bench.window() == "1.0.0"
    failed = bench.slot_file.book.slot(second.ref.digest)
    assert failed is not None and "too long to try it again" in (failed.reason or "")


def test_current_that_hangs_with_a_long_deadline_is_proved_within_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.serving.PROVE_WITHIN_S", 2.0)  # of six, so that the test need not wait for them
    bench = Bench(tmp_path, "process", deadline_s=3600.0)
    bench.begin()
    bench.window()
    bench.promote("1.1.0", kind="hanging_on_black")
    assert bench.serving.current() is not None
    bench.serving.window_failed("hung", BLACK)
    before_s = time.monotonic()
    assert bench.window() == "1.0.0"
    assert time.monotonic() - before_s < 2.0 * 3, "its own deadline is an hour"
    bench.serving.close()


def test_only_bundle_there_is_has_its_own_time_to_open(bench: Bench) -> None:
    bench.begin()
    bench.window()
    bench.fail()
    bench.window()
    assert bench.limits == [None, None], "there is nothing to go back to"
    bench.promote("1.1.0")
    bench.fail()
    bench.window()
    assert bench.limits[-1] == PROVE_WITHIN_S


def test_current_that_keeps_failing_gives_way_to_the_previous_one(bench: Bench) -> None:
    bench.begin()
    bench.window()
    second = bench.promote("1.1.0")
    for _ in range(IN_A_ROW):
        bench.clock.forward(60)
        assert bench.fail("hung") == "1.1.0"
    assert bench.window() == "1.0.0"
    assert bench.slot_file.book.state(second.ref.digest) == "bad"


def test_current_that_fails_every_other_window_gives_way_and_never_comes_back(bench: Bench) -> None:
    bench.begin()
    bench.window()
    second = bench.promote("1.1.0")
    for _ in range(FAILED_WINDOWS):
        assert bench.window() == "1.1.0"
        assert bench.fail("not a number") == "1.1.0"
    assert bench.window() == "1.0.0"
    failed = bench.slot_file.book.slot(second.ref.digest)
    assert failed is not None and failed.reason == "not a number; 3 failures within 5 windows"
    for _ in range(3 * OF_LAST_WINDOWS):  # the one before it fails in the same way, and there is none to swing to
        bench.clock.forward(60)
        bench.fail()
        assert bench.window() == "1.0.0"
    assert bench.slot_file.book.current != second.ref.digest


def test_current_that_fails_seldom_stays(bench: Bench) -> None:
    bench.begin()
    bench.window()
    bench.promote("1.1.0")
    for _ in range(2 * FAILURES):
        bench.clock.forward(60)
        assert bench.fail() == "1.1.0"
        for _ in range(OF_LAST_WINDOWS // 2):
            assert bench.window() == "1.1.0"
    assert bench.slot_file.book.previous is not None


def test_current_that_crashes_every_few_seconds_of_a_fast_line_gives_way(bench: Bench) -> None:
    bench.begin()
    bench.window()
    bench.promote("1.1.0")
    for _ in range(FAILURES):
        for _ in range(OF_LAST_WINDOWS):
            assert bench.window() == "1.1.0"
        bench.clock.forward(5)
        assert bench.fail() == "1.1.0"
    assert bench.window() == "1.0.0"


def test_only_bundle_that_fails_every_other_window_is_one_alarm_a_minute(bench: Bench) -> None:
    bench.begin()
    for _ in range(100):
        bench.clock.forward(0.1)
        bench.window()
        bench.fail()
    assert bench.told.count("bundle_failed") == 1
    bench.clock.forward(ALONE_EVERY_S)
    bench.window()
    bench.fail()
    assert bench.told.count("bundle_failed") == 2


def test_only_bundle_that_keeps_failing_is_tried_for_ever_with_pauses(bench: Bench) -> None:
    bench.begin()
    bench.window()
    for _ in range(10):
        bench.clock.forward(60)
        assert bench.serving.current() is not None
        bench.serving.window_failed("child died")
    assert bench.serving.current() is None, "the pause is not over"
    assert bench.serving.problem == "child died"
    bench.clock.forward(60)
    assert bench.window() == "1.0.0"


def test_bundle_whose_file_is_gone_is_told_and_tried_again(bench: Bench) -> None:
    first = bench.begin()
    path = bench.slot_file.bundle_path(first.ref)
    content = path.read_bytes()
    path.unlink()
    assert bench.serving.current() is None
    assert "cannot be opened" in (bench.serving.problem or "")
    path.write_bytes(content)
    bench.clock.forward(60)
    assert bench.window() == "1.0.0"


def test_offer_that_is_not_wanted_any_more_is_closed(bench: Bench) -> None:
    first = bench.begin()
    bench.window()
    second = bench.store("1.1.0")
    engine = bench.open(second)
    bench.serving.offer(engine)
    assert bench.window() == "1.0.0"
    assert bench.slot_file.book.current == first.ref.digest
    with pytest.raises(ModelError):
        engine.session.infer(PICTURE)


def test_restart_in_the_middle_of_a_trial_goes_on_with_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.begin()
    bench.window()
    bench.activate("1.1.0")
    bench.window()
    bench.serving.close()
    again = Bench(tmp_path)
    again.slot_file.change(slots.started)
    assert again.window() == "1.1.0"
    assert again.slot_file.book.trial is not None
    again.serving.close()


def test_bundle_in_service_that_lasts_a_minute_forgives_the_starts_before(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.begin()
    bench.window()
    bench.promote("1.1.0")
    bench.serving.close()
    again = Bench(tmp_path)
    again.slot_file.change(lambda book, now: slots.started(book, now, contained=False))
    again.window()
    assert [slot.starts for slot in again.slot_file.book.slots] == [0, 1]
    again.clock.forward(LASTS_S)
    again.window()
    assert [slot.starts for slot in again.slot_file.book.slots] == [0, 0]
    again.serving.close()
