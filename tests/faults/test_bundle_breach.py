"""A network that dies, hangs, leaks or answers nonsense is taken back within ten seconds, on trial and in service.

In service it is opened again first: what was only a bad moment costs one window.
"""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from edge.failures import FAILED_WINDOWS
from edge.slots import MAX_STARTS
from edge.wire.base import BundleRef
from tests.bundles import HOARDS_ABOVE, Kind, bundle_bytes
from tests.faults.camera import Camera, picture, put
from tests.faults.commander import Commander
from tests.faults.plant import START_S, Device, gone

PICTURES_PER_S = 30.0
BACK_S = 10.0
"""A breach must be over by then, without any network."""
LEAK_LIMIT_BYTES = 160 * 2**20
LONG_TRIAL = {"windows": 1_000_000, "seconds": 3600}
"""A trial that does not end by itself within a test."""
DEADLINE_MS = 2000
WORDS = {"nan_on_black": "not finite", "crashing_on_black": "SIGFPE", "hanging_on_black": "no answer within"}
"""What is said of each."""


@pytest.fixture
def commander(tmp_path: Path) -> Iterator[Commander]:
    with Commander(tmp_path) as made:
        yield made


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_network_on_trial_that_dies_or_hangs_is_taken_back_without_any_network(
    commander: Commander, rng: random.Random, how: signal.Signals
) -> None:
    device = commander.device(probation=LONG_TRIAL, station={"deadline_ms": DEADLINE_MS})
    with device, Camera(device.inbox, PICTURES_PER_S, rng):
        new = _on_trial(commander, device)
        commander.leave()
        device.wait_for_action()
        child = device.children()[-1]
        at_s = time.monotonic()
        child.send_signal(how)
        decided = len(device.decisions())
        device.wait_for(lambda: _deciding(device, decided) == "1.0.0", START_S, "1.0.0 to decide again")
        took_s = time.monotonic() - at_s
        print(f"{how.name}: back after {took_s:.2f} s")
        assert took_s < BACK_S
        (failed,) = device.events("bundle_failed")
        assert failed["severity"] == "alarm"
        assert ("deadline" if how == signal.SIGSTOP else how.name) in failed["detail"]
        assert [e["data"]["bundle"]["version"] for e in device.events("bundle_returned")] == ["1.0.0"]
        device.wait_for(lambda: _slots(device)[new.digest] == "bad", START_S, "the report to call it bad")
        lost = [d for d in device.decisions() if d.get("reason") in ("model_error", "deadline")]
        assert len(lost) == 1, "one window was on its way when it died, and is handed over"
        assert lost[0]["action"] == "hand_over"
        assert gone(child.pid)
        assert len(_children(device)) == 1, "only the good one is left"


def test_network_that_failed_on_trial_stays_away_over_restarts_and_wishes(
    commander: Commander, rng: random.Random
) -> None:
    device = commander.device(probation=LONG_TRIAL)
    with device, Camera(device.inbox, PICTURES_PER_S, rng):
        new = _on_trial(commander, device)
        device.children()[-1].kill()
        device.wait_for(lambda: _slots(device).get(new.digest) == "bad", START_S, "it to be called bad")
        device.kill()
        device.start()
        device.wait_for_action()
        fetched = commander.downloads()
        wish = commander.want("box-1", new)
        device.wait_for(lambda: device.reported()["config_version"] == wish, START_S, "the wish to be answered")
        assert "failed on this device before" in device.reported()["refusals"][-1]["reason"]
        assert commander.downloads() == fetched, "it was fetched again"
        assert device.serving() == "1.0.0"


@pytest.mark.parametrize("when", ["on trial", "in service"])
def test_network_inline_that_ends_the_daemon_at_every_start_is_taken_back_without_any_network(
    commander: Commander, rng: random.Random, when: str
) -> None:
    probation = LONG_TRIAL if when == "on trial" else {"windows": 5}
    device = commander.device(probation=probation, station={"isolation": "inline"})
    wanted = {"on trial": "bundle_swapped", "in service": "bundle_promoted"}[when]
    with device, Camera(device.inbox, PICTURES_PER_S, rng):
        device.wait_for_action()
        new = commander.publish(bundle_bytes("1.1.0"))
        commander.want("box-1", new)
        device.wait_for(lambda: device.events(wanted), START_S, f"1.1.0 to be {when}")
        commander.leave()
        for number in range(1, MAX_STARTS + 2):
            device.kill()
            device.start()
            device.wait_for(lambda number=number: len(device.events("slots_read")) > number, START_S, "its word")
        decided = len(device.decisions())
        device.wait_for(lambda: _deciding(device, decided) == "1.0.0", START_S, "1.0.0 to decide again")
        (failed,) = device.events("bundle_failed")
        assert failed["severity"] == "alarm" and "back to brightness 1.0.0" in failed["detail"]
        says = [event["detail"] for event in device.events("slots_read")]
        assert says[1].startswith("1.1.0 decides")
        assert says[-1].startswith("1.0.0 decides; 1.1.0 failed: the daemon started 5 times")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_network_in_service_that_dies_or_hangs_is_opened_again(
    tmp_path: Path, rng: random.Random, how: signal.Signals
) -> None:
    device = Device(tmp_path / "box-1", station={"deadline_ms": DEADLINE_MS})
    with device, Camera(device.inbox, PICTURES_PER_S, rng):
        for number in range(1, 3):
            device.wait_for_action()
            (child,) = _children(device)
            child.send_signal(how)
            device.wait_for(lambda number=number: len(_lost(device)) == number, BACK_S, "the window that was lost")
            decided = len(device.decisions())
            device.wait_for(lambda decided=decided: _deciding(device, decided) == "1.0.0", BACK_S, "it to decide again")
            assert _children(device)[0].pid != child.pid
            assert gone(child.pid)
    assert [decision["action"] for decision in _lost(device)] == ["hand_over"] * 2
    assert len(device.events("bundle_opened")) == 3, "opened at the start and after each death"


@pytest.mark.parametrize("kind", ["nan_on_black", "crashing_on_black", "hanging_on_black"])
def test_network_in_service_that_fails_again_when_it_is_proved_anew_is_taken_back_without_any_network(
    commander: Commander, rng: random.Random, kind: Kind
) -> None:
    """One part is enough: it is opened again, fails on the same part, and the one before it decides."""
    device = commander.device(probation={"windows": 5}, station={"deadline_ms": DEADLINE_MS})
    with device:
        new = _promoted(commander, device, rng, kind)
        commander.leave()
        _show(device, picture(0, rng, noise=0))
        device.wait_for(lambda: _opened(device) == ["1.0.0"] * 2, START_S, "1.0.0 to be opened again")
        (lost,) = _lost(device)
        (failed,) = device.events("bundle_failed")
        took_s = (device.events("bundle_opened")[-1]["at_ms"] - lost["at_ms"]) / 1000
        print(f"{kind}: back {took_s:.2f} s after its first breach: {failed['detail']}")
        assert took_s < BACK_S
        # On a machine too busy to open it within `QUICK_TO_OPEN_S` it is not tried again, and goes back sooner.
        assert any(why in failed["detail"] for why in ("fails on the same input again", "too long to try it again"))
        assert WORDS[kind] in failed["detail"]
        _show(device, picture(0, rng, noise=0))
        device.wait_for(lambda: _deciding(device, 0) == "1.0.0", START_S, "1.0.0 to decide")
        device.wait_for(lambda: _slots(device)[new.digest] == "bad", START_S, "the report to call it bad")
        assert len(_lost(device)) == 1, "no other part was lost"


def test_network_in_service_whose_child_dies_at_every_other_window_is_taken_back_without_any_network(
    commander: Commander, rng: random.Random
) -> None:
    """It answers whatever it is asked again, so only its count of failures tells."""
    device = commander.device(probation={"windows": 5})
    with device:
        new = _promoted(commander, device, rng, "brightness")
        commander.leave()
        for _ in range(FAILED_WINDOWS):
            lost = len(_lost(device))
            psutil.Process(_children(device)[0].pid).send_signal(signal.SIGSEGV)
            _show(device, picture(220, rng))
            device.wait_for(lambda lost=lost: len(_lost(device)) == lost + 1, BACK_S, "the window that was lost")
            _show(device, picture(220, rng))
            device.wait_for(lambda: _deciding(device, 0) is not None, BACK_S, "a window that was judged")
        assert _deciding(device, 0) == "1.0.0"
        took_s = (device.events("bundle_failed")[0]["at_ms"] - _lost(device)[0]["at_ms"]) / 1000
        print(f"given up {took_s:.2f} s after its first failure")
        assert took_s < BACK_S
        (failed,) = device.events("bundle_failed")
        assert "3 failures within 5 windows" in failed["detail"] and "back to brightness 1.0.0" in failed["detail"]
        device.wait_for(lambda: _slots(device)[new.digest] == "bad", START_S, "the report to call it bad")


def test_network_on_trial_that_hangs_while_it_is_loaded_after_a_restart_is_taken_back_without_any_network(
    commander: Commander, rng: random.Random
) -> None:
    device = commander.device(probation=LONG_TRIAL)
    with device:
        with Camera(device.inbox, PICTURES_PER_S, rng):
            _on_trial(commander, device)
        commander.leave()
        device.kill()
        device.start()
        device.wait_for(device.children, START_S, "a child to load the network")
        at_s = time.monotonic()
        device.children()[0].suspend()
        assert "bundle_opened" not in [event["name"] for event in device.events()][-2:], "it had loaded it already"
        device.wait_for(lambda: device.events("bundle_failed"), START_S, "it to be given up")
        _show(device, picture(220, rng))
        device.wait_for(lambda: _deciding(device, 0) == "1.0.0", START_S, "1.0.0 to decide again")
        took_s = time.monotonic() - at_s
        print(f"back {took_s:.2f} s after it began to hang")
        assert took_s < BACK_S
        (failed,) = device.events("bundle_failed")
        assert "did not load the model within" in failed["detail"] and "back to brightness 1.0.0" in failed["detail"]


@pytest.mark.parametrize("when", ["on trial", "in service"])
def test_network_that_leaks_is_taken_back_without_any_network(
    commander: Commander, rng: random.Random, when: str
) -> None:
    """Each brighter part makes the child larger for good: what leaks is the engine's own memory."""
    windows = LONG_TRIAL["windows"] if when == "on trial" else 5
    device = commander.device(probation={"windows": windows, "max_memory_bytes": LEAK_LIMIT_BYTES})
    with device:
        _show(device, picture(200, rng))
        device.wait_for_action()
        new = commander.publish(bundle_bytes("1.1.0", kind="hoarding"))
        commander.want("box-1", new)
        device.wait_for(lambda: device.events("bundle_swapped"), START_S, "1.1.0 to decide")
        if when == "in service":
            for _ in range(windows):
                _show(device, picture(200, rng))
            device.wait_for(lambda: device.events("bundle_promoted"), START_S, "its probation to be over")
        commander.leave()
        child, sizes, breached_s = _grown(device, rng)
        device.wait_for(lambda: device.events("bundle_failed"), BACK_S, "it to be taken back")
        _show(device, picture(200, rng))
        device.wait_for(lambda: _deciding(device, 0) == "1.0.0", BACK_S, "1.0.0 to decide again")
        took_s = time.monotonic() - breached_s
        print(f"MiB: {[size // 2**20 for size in sizes]}; back after {took_s:.2f} s")
        assert took_s < BACK_S
        assert sorted(sizes) == sizes and len(sizes) > 2, "it grew from part to part"
        (failed,) = device.events("bundle_failed")
        assert "bytes of memory, more than" in failed["detail"] and "back to brightness 1.0.0" in failed["detail"]
        device.wait_for(lambda: gone(child), BACK_S, "its memory to be given back")
        assert _lost(device) == [], "no window was lost"


def _on_trial(commander: Commander, device: Device) -> BundleRef:
    """Give the device a new version and wait until it decides on trial."""
    device.wait_for_action()
    new = commander.publish(bundle_bytes("1.1.0"))
    commander.want("box-1", new)
    device.wait_for(lambda: _deciding(device, 0) == "1.1.0", START_S, "1.1.0 to decide")
    # A child that checks signatures may still be ending.
    device.wait_for(lambda: len(_children(device)) == 2, START_S, "the one before it to stay warm")
    device.wait_for(lambda: _slots(device).get(new.digest) == "trial", START_S, "the report to call it a trial")
    return new


def _promoted(commander: Commander, device: Device, rng: random.Random, kind: Kind) -> BundleRef:
    """Give the device a new version and show it parts until its probation is over."""
    new = commander.publish(bundle_bytes("1.1.0", kind=kind))
    commander.want("box-1", new)
    with Camera(device.inbox, PICTURES_PER_S, rng) as camera:
        device.wait_for(lambda: _slots(device).get(new.digest) == "good", START_S, "its probation to be over")
    device.wait_for(lambda: len(device.decisions()) == len(camera.names), START_S, "all parts to be decided")
    device.wait_for(lambda: len(_children(device)) == 1, START_S, "the one before it to be closed")
    assert _lost(device) == []
    return new


def _grown(device: Device, rng: random.Random) -> tuple[int, list[int], float]:
    """Show brighter and brighter parts until the child is beyond its limit; return it, its sizes, and when it was."""
    child = max(_children(device), key=lambda process: process.create_time())
    sizes = [child.memory_full_info().pss]
    for brightness in range(HOARDS_ABOVE + 1, HOARDS_ABOVE + 13):
        decided = len(device.decisions())
        _show(device, picture(brightness, rng))
        device.wait_for(lambda decided=decided: len(device.decisions()) > decided, BACK_S, "it to be judged")
        try:
            size = child.memory_full_info().pss
        except psutil.Error:
            size = 0
        if size == 0:  # the daemon has looked first, and ended it
            return child.pid, sizes, time.monotonic()
        sizes.append(size)
        if size > LEAK_LIMIT_BYTES:
            return child.pid, sizes, time.monotonic()
    raise AssertionError(f"it did not grow beyond its limit: {sizes}")


def _show(device: Device, content: bytes) -> None:
    """Put one part into its inbox."""
    put(device.inbox / f"part-{len(list(device.inbox.iterdir())):06d}.png", content)


def _deciding(device: Device, after: int) -> str | None:
    """The version that made the newest decision after the first `after`, None if there is none of a network's."""
    new = device.decisions()[after:]
    if not new or "bundle" not in new[-1] or not new[-1].get("scores"):
        return None
    return str(new[-1]["bundle"]["version"])


def _slots(device: Device) -> dict[str, str]:
    slots = device.reported().get("slots", {}).get("brightness", [])
    return {slot["bundle"]["digest"]: slot["state"] for slot in slots}


def _children(device: Device) -> list[psutil.Process]:
    return [child for child in device.children() if not gone(child.pid)]


def _opened(device: Device) -> list[str]:
    """The versions that were opened from disk, in order."""
    return [event["data"]["bundle"]["version"] for event in device.events("bundle_opened")]


def _lost(device: Device) -> list[dict[str, Any]]:
    return [d for d in device.decisions() if d.get("reason") in ("model_error", "deadline")]
