"""The table of faults that the soak injects: each breaks the line, sees that it shows where it must, and mends it.

Rules:
- A fault returns mended: what it killed runs again, what it cut is whole. Whether the line is well is asked afterwards.
- `ends_daemon` says that the daemon begins a new life; memory is judged over the last one.
- A clock that jumps is not here: no process without root can be given one. The tests of the parts pass clocks in.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from tests.edge.sources.mjpeg import HEIGHT, WIDTH
from tests.faults.badpictures import BAD_PICTURES
from tests.faults.camera import large_picture
from tests.faults.plant import STOP_S, gone
from tests.faults.soakline import RECOVERY_S, Line
from tests.waiting import wait_until

Hold = Callable[[], None]
"""Lets the line run with the fault in force."""

BAD_CAMERA = ("bad_input",)
LOST_WINDOW = ("model_error", "deadline")
FILL_BYTES = 2**20


@dataclass(frozen=True)
class Fault:
    """A row of the table."""

    name: str
    inject: Callable[[Line, Hold], None]
    ends_daemon: bool = False
    needs_disk: bool = False


def daemon_killed(line: Line, hold: Hold) -> None:
    line.device.kill()
    hold()
    line.device.start()


def daemon_restarted(line: Line, hold: Hold) -> None:
    assert line.device.stop() == 0, "it did not end in order"
    hold()
    line.device.start()


def daemon_stood_still(line: Line, hold: Hold) -> None:
    os.kill(line.device.pid, signal.SIGSTOP)
    try:
        hold()
    finally:
        os.kill(line.device.pid, signal.SIGCONT)


def network_killed(line: Line, hold: Hold) -> None:
    _hit_network(line, signal.SIGKILL)
    hold()


def network_crashed(line: Line, hold: Hold) -> None:
    _hit_network(line, signal.SIGSEGV)
    hold()


def network_hung(line: Line, hold: Hold) -> None:
    _hit_network(line, signal.SIGSTOP)
    hold()


def cloud_killed(line: Line, hold: Hold) -> None:
    broker = line.cloud.broker_pid
    line.cloud.kill()
    wait_until(lambda: gone(broker), STOP_S, "the broker to end with the control plane")
    hold()
    line.cloud.start()


def link_cut(line: Line, hold: Hold) -> None:
    line.link.refuse = True
    line.link.cut()
    hold()
    line.link.refuse = False


def link_silent(line: Line, hold: Hold) -> None:
    line.link.hole = True
    hold()
    line.link.hole = False


def link_slow(line: Line, hold: Hold) -> None:
    line.link.delay_s, line.link.bytes_per_s = 0.3, 50_000.0
    hold()
    line.link.delay_s, line.link.bytes_per_s = 0.0, None


def pictures_bad(line: Line, hold: Hold) -> None:
    """Cut, huge, one pixel, no picture at all; each name is new."""
    after = line.last_seq()
    for name, (data, _) in BAD_PICTURES.items():
        line.deliver(f"bad-{after}-{name}", data)
    hold()
    line.device.wait_for(
        lambda: line.deferred_after(after, "main", BAD_CAMERA) >= len(BAD_PICTURES), RECOVERY_S, "bad pictures deferred"
    )


def pictures_in_a_burst(line: Line, hold: Hold) -> None:
    with line.camera.paused():
        line.camera.deliver(100)
    after = line.last_seq()
    for number in range(5):
        line.deliver(f"large-{after}-{number}.png", large_picture(line.rng))
    hold()


def folder_gone(line: Line, hold: Hold) -> None:
    after = line.last_seq()
    aside = line.folder / "inbox-aside"
    with line.camera.paused():
        line.device.inbox.rename(aside)
        line.device.wait_for(lambda: line.events_after(after, "source_lost"), RECOVERY_S, "the folder to be missed")
        hold()
        aside.rename(line.device.inbox)


def camera_black(line: Line, hold: Hold) -> None:
    _camera_shows(line, lambda: np.zeros((HEIGHT, WIDTH, 3), np.uint8), hold)


def camera_frozen(line: Line, hold: Hold) -> None:
    still = line.passing.part(7)
    _camera_shows(line, lambda: still, hold)


def camera_of_wrong_size(line: Line, hold: Hold) -> None:
    large = cv2.resize(line.passing.part(3), (WIDTH * 2, HEIGHT * 2))
    _camera_shows(line, lambda: large, hold)


def camera_unplugged(line: Line, hold: Hold) -> None:
    after = line.last_seq()
    line.belt.plugged = False
    line.device.wait_for(lambda: line.deferred_after(after, "belt", BAD_CAMERA), RECOVERY_S, "the camera to be missed")
    hold()
    line.belt.plugged = True


def disk_full(line: Line, hold: Hold) -> None:
    assert line.disk is not None
    before = len(line.unrecorded())
    ballast = line.disk / "ballast"
    fill(ballast)
    line.device.wait_for(lambda: len(line.unrecorded()) > before, RECOVERY_S, "safe actions on a full disk")
    hold()
    ballast.unlink()


def bundle_refused(line: Line, hold: Hold) -> None:
    """A version whose golden outputs are not met is refused before it decides anything."""
    after = line.last_seq()
    line.new_version("wrong_golden")
    line.device.wait_for(lambda: line.events_after(after, "bundle_refused"), RECOVERY_S, "the bundle to be refused")
    hold()


def bundle_gives_no_number(line: Line, hold: Hold) -> None:
    """A version that answers NaN to a black picture, and one such picture; it goes back, trial over or not."""
    after = _on_trial(line, "nan_on_black")
    line.deliver(f"black-{after}.png", _black_png())
    _expect_back(line, after, hold)


def bundle_crashes_on_trial(line: Line, hold: Hold) -> None:
    _hit_trial(line, signal.SIGSEGV, hold)


def bundle_hangs_on_trial(line: Line, hold: Hold) -> None:
    _hit_trial(line, signal.SIGSTOP, hold)


def bundle_good(line: Line, hold: Hold) -> None:
    """No fault of its own: a version that lasts, so that swaps are part of the hour."""
    after = _on_trial(line)
    line.device.wait_for(lambda: line.events_after(after, "bundle_promoted"), RECOVERY_S, "it to last its trial")
    hold()


FAULTS = (
    Fault("daemon_killed", daemon_killed, ends_daemon=True),
    Fault("daemon_restarted", daemon_restarted, ends_daemon=True),
    Fault("daemon_stood_still", daemon_stood_still),
    Fault("network_killed", network_killed),
    Fault("network_crashed", network_crashed),
    Fault("network_hung", network_hung),
    Fault("cloud_killed", cloud_killed),
    Fault("link_cut", link_cut),
    Fault("link_silent", link_silent),
    Fault("link_slow", link_slow),
    Fault("pictures_bad", pictures_bad),
    Fault("pictures_in_a_burst", pictures_in_a_burst),
    Fault("folder_gone", folder_gone),
    Fault("camera_black", camera_black),
    Fault("camera_frozen", camera_frozen),
    Fault("camera_of_wrong_size", camera_of_wrong_size),
    Fault("camera_unplugged", camera_unplugged),
    Fault("disk_full", disk_full, needs_disk=True),
    Fault("bundle_refused", bundle_refused),
    Fault("bundle_gives_no_number", bundle_gives_no_number),
    Fault("bundle_crashes_on_trial", bundle_crashes_on_trial),
    Fault("bundle_hangs_on_trial", bundle_hangs_on_trial),
    Fault("bundle_good", bundle_good),
)


def fill(ballast: "os.PathLike[str]") -> None:
    """Take every byte of a disk that is free, and the last ones one by one."""
    with open(ballast, "ab", buffering=0) as file:  # noqa: PTH123 - unbuffered, so that the disk itself says no
        for size in (FILL_BYTES, 4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


def _hit_network(line: Line, how: signal.Signals) -> None:
    after = line.last_seq()
    line.rng.choice(line.inference()).send_signal(how)
    line.device.wait_for(
        lambda: sum(line.deferred_after(after, station, LOST_WINDOW) for station in ("main", "belt")),
        RECOVERY_S,
        "the window that was lost",
    )


def _camera_shows(line: Line, instead: Callable[[], object], hold: Hold) -> None:
    after = line.last_seq()
    line.passing.instead = instead
    line.device.wait_for(
        lambda: line.deferred_after(after, "belt", BAD_CAMERA), RECOVERY_S, "the frames to be deferred"
    )
    hold()
    line.passing.instead = None


def _on_trial(line: Line, kind: str = "brightness") -> int:
    """Roll a version out and wait until it decides on trial; return the last row before that."""
    after = line.last_seq()
    line.new_version(kind)
    line.device.wait_for(lambda: line.events_after(after, "bundle_swapped"), RECOVERY_S, "the new version to decide")
    return after


def _hit_trial(line: Line, how: signal.Signals, hold: Hold) -> None:
    """Hit every process that came with the version: the newest alone may be one that only checks signatures."""
    before = {child.pid for child in line.inference()}
    after = _on_trial(line)
    for child in line.inference():
        if child.pid not in before:
            child.send_signal(how)
    _expect_back(line, after, hold)


def _expect_back(line: Line, after: int, hold: Hold) -> None:
    line.device.wait_for(lambda: line.events_after(after, "bundle_failed"), RECOVERY_S, "it to be taken back")
    hold()


def _black_png() -> bytes:
    return cv2.imencode(".png", np.zeros((24, 24, 3), np.uint8))[1].tobytes()
