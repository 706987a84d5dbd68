"""The operating system of a device is replaced, tried, confirmed or left, by its own judgement, over restarts."""

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge import slots
from edge.errors import LinkError
from edge.osrules import Quiet, waits_for
from edge.osslots import simulated
from edge.osslots.interface import Tries
from edge.osupdate import AGAIN_S, SETTLE_S
from edge.wire.osimage import KERNEL, MAX_OS_BYTES
from tests.osbox import FLASHED, LIMITS, RULES, SHORT, Box
from tests.systems import System, system
from tests.webserver import WebServer


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer() as made:
        yield made


@pytest.fixture
def box(tmp_path: Path, server: WebServer) -> Iterator[Box]:
    made = Box(tmp_path, server.url)
    yield made
    made.store.close()


@pytest.fixture
def new(server: WebServer) -> System:
    made = system("1.1.0")
    server.files[made.path] = made.data
    return made


def test_first_start_takes_in_what_runs_and_confirms_it(box: Box) -> None:
    assert box.book.current == FLASHED.digest and box.book.floor == "1.0.0"
    box.passes(1)
    assert box.slots.tries("a") == Tries(None)
    assert (box.folder / "os/machine" / simulated.WELL).exists()
    report = box.systems.report()
    assert (report.model, report.serving, report.slot, report.problem) == ("os-x86-box", FLASHED, "a", None)


def test_new_system_is_tried_and_confirmed_by_its_own_daemon(box: Box, new: System) -> None:
    box.update(new)
    assert box.book.current == FLASHED.digest and box.book.state(new.ref.digest) == "trial"
    box.passes(RULES.probation_s - 1)
    assert not (box.folder / "os/machine" / simulated.WELL).exists()
    box.passes(2)
    assert box.book.current == new.ref.digest and box.book.previous == FLASHED.digest
    assert (box.folder / "os/machine" / simulated.WELL).exists()
    assert box.slots.tries("b") == Tries(None)
    assert box.names()[-2:] == ["os_trial", "os_confirmed"]
    for _ in range(4):
        box.power_on()
    assert box.running == "1.1.0" and box.systems.report().serving == new.ref


def test_candidate_is_put_in_place_and_not_started(box: Box, new: System, server: WebServer) -> None:
    box.sign(new)
    box.want(FLASHED, new.ref)
    assert box.book.state(new.ref.digest) == "staged" and box.slots.tries("b") is None
    box.passes(2 * RULES.quiet.idle_s)
    assert box.restarts == 0
    box.power_on()
    assert box.running == "1.0.0"
    asked = len(server.requests)
    box.want(new.ref)
    assert len(server.requests) == asked  # what lies there, proven, is not fetched again
    assert box.book.state(new.ref.digest) == "trial"


def test_restart_waits_until_the_line_is_quiet(box: Box, new: System) -> None:
    box.sign(new)
    box.want(new.ref)
    for _ in range(200):
        box.decisions += 1
        box.passes(1)
    assert box.restarts == 0
    assert box.systems.report().waits_for == "30 s without a decision"
    box.passes(RULES.quiet.idle_s + 1)
    assert box.restarts == 1
    box.passes(10)
    assert box.restarts == 1
    box.passes(AGAIN_S)
    assert box.restarts == 2


def test_line_that_is_never_quiet_is_restarted_in_the_end(box: Box, new: System) -> None:
    box.sign(new)
    box.want(new.ref)
    for _ in range(int(RULES.quiet.wait_max_s) + 2):
        box.decisions += 1
        box.clock.forward(1)
        box.systems.look()
    assert box.restarts >= 1


@pytest.mark.parametrize(
    ("at", "may"), [("01:59", False), ("02:00", True), ("03:59", True), ("04:00", False)]
)  # fmt: skip
def test_restart_keeps_to_its_hours(at: str, *, may: bool) -> None:
    words = None if may else "its hours, 02:00-04:00"
    quiet = Quiet(idle_s=0, window="02:00-04:00", wait_max_s=86_400)
    minute = int(at[:2]) * 60 + int(at[3:])
    assert waits_for(quiet, minute_of_day=minute, idle_s=0, waited_s=10) == words
    assert waits_for(quiet, minute_of_day=minute, idle_s=0, waited_s=90_000) is None


def test_hours_may_reach_over_midnight() -> None:
    quiet = Quiet(idle_s=0, window="22:00-04:00", wait_max_s=86_400)
    asked = {
        hour: waits_for(quiet, minute_of_day=hour * 60, idle_s=0, waited_s=10) is None for hour in (21, 22, 0, 3, 4)
    }
    assert asked == {21: False, 22: True, 0: True, 3: True, 4: False}


def test_system_whose_daemon_never_starts_is_left_by_counting_and_says_why(box: Box, new: System) -> None:
    box.update(new)
    (box.folder / "os/why").write_text("the daemon ended 4 times; it said: No module named edge\n")
    for _ in range(2):  # no daemon: the machine starts, and nobody says that it is well
        simulated.start(box.folder / "os/machine")
    box.power_on()
    assert box.running == "1.0.0"
    assert box.book.current == FLASHED.digest and box.book.state(new.ref.digest) == "bad"
    reason = box.book.slot(new.ref.digest)
    assert reason is not None and reason.reason == (
        "started 3 times and never well: the daemon ended 4 times; it said: No module named edge"
    )
    assert "No module named edge; back to os-x86-box 1.0.0" in dict(box.told)["os_failed"]
    assert "No module named edge" in (box.systems.report().problem or "")
    assert box.slots.tries("b") is None and not (box.folder / "os/trial").exists()
    box.want(new.ref)
    assert box.refused[0][0] == "1.1.0" and "failed on this device before" in box.refused[0][1]


def test_system_under_which_a_station_does_not_decide_is_left_by_its_daemon(box: Box, new: System) -> None:
    box.update(new)
    box.trouble = {"main": "no camera at /dev/video0"}
    restarts = box.restarts
    box.passes(RULES.deadline_s + SETTLE_S + 1)
    assert box.restarts == restarts + 1
    assert box.book.state(new.ref.digest) == "bad"
    box.power_on()
    assert box.running == "1.0.0"
    assert "main: no camera at /dev/video0" in dict(box.told)["os_failed"]
    box.trouble = {}
    box.passes(2)
    assert (box.folder / "os/machine" / simulated.WELL).exists()


def test_trouble_from_before_the_update_is_not_held_against_it(box: Box, new: System) -> None:
    box.trouble = {"main": "the camera is unplugged"}
    box.update(new)
    box.passes(RULES.probation_s + 1)
    assert box.book.current == new.ref.digest


def test_probation_begins_anew_with_every_trouble(box: Box, new: System) -> None:
    box.update(new)
    box.passes(RULES.probation_s - 5)
    box.trouble = {"main": "frozen"}
    box.passes(1)
    box.trouble = {}
    box.passes(RULES.probation_s - 5)
    assert box.book.state(new.ref.digest) == "trial"
    box.passes(6)
    assert box.book.current == new.ref.digest


def test_daemon_that_ends_again_and_again_on_trial_goes_back(box: Box, new: System) -> None:
    box.update(new)
    for _ in range(slots.MAX_STARTS):
        box.start()
    assert box.book.state(new.ref.digest) == "bad"
    restarts = box.restarts
    box.passes(SETTLE_S + 1)
    assert box.restarts == restarts + 1
    box.power_on()
    assert box.running == "1.0.0"


def test_trial_that_is_asked_back_ends_without_a_verdict(box: Box, new: System) -> None:
    box.update(new)
    restarts = box.restarts
    box.want(FLASHED)
    box.passes(SETTLE_S + 1)
    assert box.restarts == restarts + 1
    box.power_on()
    assert box.running == "1.0.0" and box.book.state(new.ref.digest) == "staged"


def test_armed_system_that_is_asked_back_is_never_started(box: Box, new: System) -> None:
    box.sign(new)
    box.want(new.ref)
    box.want(FLASHED)
    box.passes(2 * RULES.quiet.idle_s)
    assert box.restarts == 0
    box.power_on()
    assert box.running == "1.0.0"


def test_confirmed_system_that_is_taken_back_gives_way_without_a_download(
    box: Box, new: System, server: WebServer
) -> None:
    box.update(new)
    box.passes(RULES.probation_s + 1)
    asked = len(server.requests)
    box.want(FLASHED)
    box.passes(RULES.quiet.idle_s + SETTLE_S)
    box.power_on()
    assert box.running == "1.0.0" and len(server.requests) == asked
    box.passes(1)
    assert box.slots.tries("a") == Tries(None)


def test_next_system_waits_for_the_verdict_and_keeps_the_way_back(box: Box, new: System, server: WebServer) -> None:
    newer = system("1.2.0")
    server.files[newer.path] = newer.data
    box.update(new)
    box.sign(newer)
    with pytest.raises(LinkError, match="waits for the verdict"):
        box.want(newer.ref)
    assert box.slots.startable("a") == FLASHED
    box.passes(RULES.probation_s + 1)
    box.want(newer.ref)
    assert box.book.state(newer.ref.digest) == "trial" and box.book.current == new.ref.digest


def test_newer_system_takes_the_place_of_one_that_waits(box: Box, new: System, server: WebServer) -> None:
    newer = system("1.2.0")
    server.files[newer.path] = newer.data
    box.sign(new)
    box.want(new.ref)
    box.update(newer)
    assert box.book.state(new.ref.digest) == "staged"
    box.passes(RULES.probation_s + 1)
    assert box.book.current == newer.ref.digest


@pytest.mark.parametrize(
    ("offered", "why"),
    [
        (system("1.1.0", profile="rpi5"), "expected a system called os-x86-box, got os-rpi5"),
        (system("0.9.0"), "below 1.0.0"),
        (system("1.1.0", root_bytes=2**21), "the slot has 1048576"),
    ],
)
def test_system_that_does_not_suit_is_refused_before_anything_is_fetched(
    box: Box, server: WebServer, offered: System, why: str
) -> None:
    server.files[offered.path] = offered.data
    box.sign(offered)
    box.want(offered.ref)
    assert len(box.refused) == 1 and why in box.refused[0][1]
    assert server.requests == []
    box.passes(100)
    assert box.restarts == 0


def test_unsigned_and_altered_systems_are_refused_and_cannot_be_started(
    box: Box, new: System, server: WebServer
) -> None:
    box.want(new.ref)
    assert "not among the signed" in box.refused[0][1]
    server.files[new.path] = new.data[:-1] + bytes([new.data[-1] ^ 1])
    box.sign(new)
    box.want(new.ref)
    assert "expected SHA-256" in box.refused[1][1]
    assert box.slots.tries("b") is None
    box.power_on()
    assert box.running == "1.0.0"


def test_file_that_is_signed_but_no_system_is_refused(box: Box, server: WebServer) -> None:
    good = system("1.1.0")
    ref = good.ref.model_copy(update={"version": "1.3.0"})
    server.files[f"/tuf/targets/{ref.digest}.{ref.target_path}"] = good.data
    box.sign(System(good.data, ref))
    box.want(ref)
    assert "its manifest says os-x86-box 1.1.0" in box.refused[0][1]
    noise = System(
        b"no archive" * 100, good.ref.model_copy(update={"size_bytes": 1000, "digest": _digest(b"no archive" * 100)})
    )
    server.files[noise.path] = noise.data
    box.sign(noise)
    box.want(noise.ref)
    assert "not a system" in box.refused[1][1]


def test_download_goes_on_after_cuts_and_restarts_and_never_fetches_twice(
    box: Box, new: System, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.osfetch.SYNC_BYTES", 4096)
    box.sign(new)
    server.behaviour.cut_after_bytes = 20_000
    box.limits = SHORT
    with pytest.raises(LinkError, match="bytes are here"):
        box.want(new.ref)
    box.power_on()
    box.limits = LIMITS
    box.want(new.ref)
    assert box.book.state(new.ref.digest) == "trial"
    ranges = [request.headers.get("Range") for request in server.requests]
    assert ranges[0] is None and all(ranges[1:])
    assert server.body_bytes <= len(new.data) + 4096 * len(server.requests)


def test_slot_that_lost_what_was_noted_is_fetched_once_more(box: Box, new: System, server: WebServer) -> None:
    box.sign(new)
    server.behaviour.cut_after_bytes = 20_000
    box.limits = SHORT
    with pytest.raises(LinkError):
        box.want(new.ref)
    with (box.folder / "os/machine/root-b").open("r+b") as device:  # a medium that lied about its sync
        device.write(b"\0" * 20_000)
    box.limits, server.behaviour.cut_after_bytes = LIMITS, None
    box.want(new.ref)
    assert box.book.state(new.ref.digest) == "trial" and box.refused == []


def test_kernel_that_the_boot_partition_gives_back_otherwise_keeps_the_system_from_starting(
    box: Box, new: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.sign(new)
    put = box.slots.put_boot_file

    def worn_out(name: str, read: Any) -> None:
        put(name, read)
        if name == KERNEL:
            path = box.folder / "os/machine/boot/b" / name
            path.write_bytes(b"\xff" + path.read_bytes()[1:])

    monkeypatch.setattr(box.slots, "put_boot_file", worn_out)
    with pytest.raises(Exception, match="vmlinuz on the boot partition is not what was written"):
        box.want(new.ref)
    assert box.slots.tries("b") is None and box.book.current == FLASHED.digest


def test_system_that_should_run_and_does_not_start_any_more_is_told_and_the_other_goes_on(
    box: Box, new: System
) -> None:
    box.update(new)
    box.passes(RULES.probation_s + 1)
    box.want(FLASHED)  # the old one, which meanwhile does not start
    for _ in range(3):
        simulated.start(box.folder / "os/machine")
    box.power_on()
    assert box.running == "1.1.0"
    assert box.book.current == new.ref.digest
    assert "started 3 times and never well" in dict(box.told)["os_failed"]
    box.passes(5)
    assert (box.folder / "os/machine" / simulated.WELL).exists()


def test_simulated_machine_ends_the_process_to_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    made = simulated.open_slots(tmp_path, "phone-sim")
    assert made.running.ref.name == "os-phone-sim" and made.capacity_bytes == MAX_OS_BYTES
    made.restart()
    assert sent == [(os.getpid(), signal.SIGTERM)]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
