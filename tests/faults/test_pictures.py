"""Pictures that no line should send: each is recorded and handed to a person, and the next good one is decided."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.badpictures import BAD_PICTURES
from tests.faults.camera import picture, put
from tests.faults.plant import START_S, Device, as_root


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """A device on its own; no control plane is needed to say no."""
    with Device(tmp_path / "box-1") as started:
        yield started


@pytest.fixture
def rng() -> random.Random:
    return random.Random(11)


def _decided(device: Device, name: str) -> dict[str, Any]:
    """Wait for the decision on a picture and return it."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = [decision for decision in device.decisions() if decision["input"]["name"] == name]
        return bool(found)

    device.wait_for(look, START_S, f"a decision on {name}")
    return found[0]


def test_bad_pictures_are_handed_over_with_their_reason_and_good_ones_around_them_are_decided(
    device: Device, rng: random.Random
) -> None:
    put(device.inbox / "good-0.png", picture(240, rng))
    assert _decided(device, "good-0.png")["verdict"] == "pass"
    pid = device.pid
    for number, (name, (data, word)) in enumerate(BAD_PICTURES.items(), 1):
        put(device.inbox / name, data)
        bad = _decided(device, name)
        assert (bad["verdict"], bad["action"], bad["reason"]) == ("defer", "hand_over", "bad_input"), name
        assert word in bad["detail"], f"{name}: {bad['detail']}"
        assert bad["input"]["size_bytes"] == len(data)
        put(device.inbox / f"good-{number}.png", picture(15, rng))
        assert _decided(device, f"good-{number}.png")["verdict"] == "divert"
    assert device.running and device.pid == pid
    assert "Traceback" not in device.log
    assert [event["name"] for event in device.events() if event["severity"] == "alarm"] == []
    handed_over = [action for action in device.actions() if action["action"] == "hand_over"]
    assert len(handed_over) == len(BAD_PICTURES)


def test_things_that_are_no_files_are_passed_over_and_the_line_goes_on(device: Device, rng: random.Random) -> None:
    inbox = device.inbox
    os.mkfifo(inbox / "a_pipe.jpg")
    (inbox / "a_folder.jpg").mkdir()
    (inbox / "a_loop.jpg").symlink_to(inbox / "a_loop.jpg")
    (inbox / "to_nowhere.jpg").symlink_to(inbox / "not_there.jpg")
    (inbox / "a_device.jpg").symlink_to("/dev/zero")
    put(inbox / "good.png", picture(240, rng))
    assert _decided(device, "good.png")["verdict"] == "pass"
    put(inbox / "good again.png", picture(240, rng))
    _decided(device, "good again.png")
    assert [decision["input"]["name"] for decision in device.decisions()] == ["good.png", "good again.png"]
    assert "Traceback" not in device.log


def test_file_that_cannot_be_read_is_recorded_and_handed_over(
    tmp_path: Path, device: Device, rng: random.Random
) -> None:
    unreadable = tmp_path / "unreadable.png"
    if as_root():
        unreadable = Path("/proc/self/mem")  # root may read every file, but not the beginning of its own memory
    else:
        unreadable.touch(mode=0)
    (device.inbox / "secret.png").symlink_to(unreadable)
    bad = _decided(device, "secret.png")
    assert (bad["verdict"], bad["reason"]) == ("defer", "bad_input")
    assert "cannot be read" in bad["detail"]
    put(device.inbox / "good.png", picture(240, rng))
    assert _decided(device, "good.png")["verdict"] == "pass"


def test_name_that_is_no_text_and_names_with_odd_characters_are_decided(device: Device, rng: random.Random) -> None:
    names = [b"caf\xe9.png", "Prüfstück 7 – links.png".encode(), b"quote'\"; DROP TABLE rows.png", b"\nline.png"]
    for name in names:
        put(device.inbox / os.fsdecode(name), picture(240, rng))
    device.wait_for(lambda: len(device.decisions()) == len(names), START_S, "all odd names to be decided")
    assert {decision["verdict"] for decision in device.decisions()} == {"pass"}
    assert any("caf" in decision["input"]["name"] for decision in device.decisions())
