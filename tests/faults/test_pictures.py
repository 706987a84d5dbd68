"""Pictures that no line should send: each is recorded and handed to a person, and the next good one is decided."""

import io
import os
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.faults.camera import picture, put
from tests.faults.plant import START_S, Device, as_root

NOISE = np.random.default_rng(7).integers(0, 255, (64, 64, 3), np.uint8)


def _encoded(kind: str, image: "Image.Image", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


JPEG = _encoded("JPEG", Image.fromarray(NOISE), quality=90)
BAD_PICTURES: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "empty"),
    "cut.jpg": (JPEG[: len(JPEG) * 2 // 3], "cut short"),
    "cut.png": (_encoded("PNG", Image.fromarray(NOISE))[:-40], "cut short"),
    "one_pixel.png": (_encoded("PNG", Image.new("RGB", (1, 1), (9, 9, 9))), "1×1"),
    "sixteen_bit.png": (_encoded("PNG", Image.fromarray(np.full((32, 32), 40_000, np.uint16))), "8 bits"),
    "cmyk.jpg": (_encoded("JPEG", Image.new("CMYK", (32, 32), (9, 99, 199, 0))), "CMYK"),
    "huge.png": (_png_header(20_000, 20_000), "pixels"),
    "huge.jpg": (JPEG.replace(struct.pack(">HH", 64, 64), struct.pack(">HH", 20_000, 20_000), 1), "pixels"),
    "random.jpg": (np.random.default_rng(8).bytes(5000), "not a picture"),
    "text.png": (b"this is a shopping list\n" * 20, "not a picture"),
}
"""Bytes, and a word that the reason must hold."""


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
