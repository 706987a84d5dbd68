"""Cameras: a real stream over HTTP and a real video file; every way in which a camera can fail is told apart."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.clock import SystemClock
from edge.errors import ConfigError, SourceError
from edge.imaging import decode
from edge.sources import open_source
from edge.sources.camera import CameraSource
from edge.values import Window
from tests.edge.sources.mjpeg import HEIGHT, WIDTH, MjpegCamera, picture, write_video
from tests.edge.sources.rtsp import RtspCamera
from tests.edge.test_imaging import encoded
from tests.waiting import wait_until


@pytest.fixture
def stream() -> Iterator[MjpegCamera]:
    with MjpegCamera() as camera:
        yield camera


@pytest.fixture
def opened() -> Iterator[Callable[..., CameraSource]]:
    """Opens cameras that are closed at the end of the test."""
    sources: list[CameraSource] = []

    def open_one(**settings: Any) -> CameraSource:
        source = open_source("camera", settings, seen=lambda _key: False, clock=SystemClock())
        assert isinstance(source, CameraSource)
        sources.append(source)
        return source

    yield open_one
    for source in sources:
        source.close()


def until(source: CameraSource, fits: Callable[[Window], bool], what: str, timeout_s: float = 10) -> Window:
    """Read until a window fits."""
    found: list[Window] = []

    def came() -> bool:
        window = source.read(0.1)
        if window is not None and fits(window):
            found.append(window)
        return bool(found)

    wait_until(came, timeout_s, what)
    return found[0]


def good(window: Window) -> bool:
    return window.problem is None


def bad(word: str) -> Callable[[Window], bool]:
    return lambda window: window.problem is not None and window.problem.startswith(word)


def test_video_file_gives_every_frame_in_order_and_ends(tmp_path: Path, opened: Callable[..., CameraSource]) -> None:
    write_video(tmp_path / "line.avi", 30)
    source = opened(path=str(tmp_path / "line.avi"), queue=4)
    windows: list[Window] = []
    while not source.exhausted:
        window = source.read(0.2)
        if window is not None:
            windows.append(window)
    assert [window.problem for window in windows] == [None] * 30
    for number, window in enumerate(windows):
        assert window.data is not None and window.data.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(window.data.astype(int) - picture(number)).mean() < 5
    assert len({window.key for window in windows}) == 30 and source.skipped == 0
    assert source.read(0) is None


def test_frame_becomes_a_file_only_when_asked_and_the_same_pixels_again(
    tmp_path: Path, opened: Callable[..., CameraSource]
) -> None:
    write_video(tmp_path / "line.avi", 1)
    window = until(opened(path=str(tmp_path / "line.avi")), good, "a frame")
    assert window.raw is None and window.encode is not None and window.data is not None
    pixels, media_type = decode(window.encode())
    assert media_type == window.media_type == "image/png" and np.array_equal(pixels, window.data)


def test_slow_reader_gets_the_newest_frame_and_what_was_skipped_is_counted(
    stream: MjpegCamera, opened: Callable[..., CameraSource]
) -> None:
    source = opened(url=stream.url)
    first = until(source, good, "the first frame")
    sent = stream.sent
    wait_until(lambda: stream.sent >= sent + 20, 10, "twenty frames more")
    window = source.read(1)
    assert window is not None and window.waited_ms < 500
    assert _number(window) >= _number(first) + 15, "not the frame after the first"
    assert source.skipped >= 15


def test_what_was_skipped_is_told(stream: MjpegCamera, opened: Callable[..., CameraSource], monkeypatch: Any) -> None:
    monkeypatch.setattr("edge.sources.shots.NEWS_EVERY_S", 0.0)
    source = opened(url=stream.url)
    until(source, good, "the first frame")
    wait_until(lambda: source.skipped > 3, 10, "skipped frames")
    (news,) = source.news()
    assert news.name == "frames_skipped" and news.data["count"] > 3 and news.severity == "info"


def test_unplugged_camera_is_deferred_once_and_comes_back(
    stream: MjpegCamera, opened: Callable[..., CameraSource]
) -> None:
    source = opened(url=stream.url)
    until(source, good, "the first frame")
    stream.plugged = False
    window = until(source, bad("unplugged"), "the loss")
    assert window.data is None and source.problem is not None and source.problem.startswith("unplugged")
    assert source.read(0.7) is None, "one window for one loss"
    stream.plugged = True
    until(source, good, "the camera to come back")
    wait_until(lambda: source.problem is None, 5, "the camera to have been good for a while")


def test_rtsp_camera_is_read_lost_and_found_again(opened: Callable[..., CameraSource]) -> None:
    with RtspCamera() as camera:
        source = opened(url=camera.url)
        window = until(source, good, "the first frame")
        assert window.data is not None and window.data.shape == (HEIGHT, WIDTH, 3)
        distances = [np.abs(window.data.astype(int) - picture(number)).mean() for number in range(100)]
        assert min(distances) < 8 < float(np.median(distances)), "one of the frames that were sent"
        camera.plugged = False
        until(source, bad("unplugged"), "the loss", 20)
        camera.plugged = True
        until(source, good, "the camera to come back", 20)


def test_camera_that_was_never_there_is_unplugged_not_fatal(opened: Callable[..., CameraSource]) -> None:
    source = opened(device="/dev/video-that-is-not-there")
    assert "cannot be opened" in (until(source, bad("unplugged"), "the word").problem or "")


def test_black_camera_is_told_apart_at_most_once_a_second(
    stream: MjpegCamera, opened: Callable[..., CameraSource]
) -> None:
    stream.show = lambda number: picture(number) // 40
    source = opened(url=stream.url)
    window = until(source, bad("black: brightness"), "a black frame")
    assert window.data is None and window.encode is not None, "people can see it all the same"
    assert source.read(0.3) is None
    stream.show = picture
    until(source, good, "light")


def test_camera_that_flickers_is_told_once(stream: MjpegCamera, opened: Callable[..., CameraSource]) -> None:
    stream.show = lambda number: picture(number) // (40 if number % 2 else 1)
    source = opened(url=stream.url)
    until(source, bad("black"), "a black frame")
    seen = set()
    until_s = time.monotonic() + 0.5
    while time.monotonic() < until_s:
        source.read(0.01)
        seen.add(source.problem is None)
    assert seen == {False}


def test_camera_that_is_lost_while_it_runs_at_a_rate_is_one_window(
    stream: MjpegCamera, opened: Callable[..., CameraSource]
) -> None:
    source = opened(url=stream.url, trigger={"kind": "rate", "rate_hz": 50})
    until(source, good, "the first frame")
    stream.plugged = False
    until(source, bad("unplugged"), "the loss")
    assert source.read(0.5) is None
    stream.plugged = True
    stream.show = lambda number: picture(number) // 40
    until(source, bad("black"), "the camera to come back dark")
    assert source.read(0.3) is None, "at most once a second"


def test_frozen_camera_is_told_apart(stream: MjpegCamera, opened: Callable[..., CameraSource]) -> None:
    source = opened(url=stream.url, frozen_after_s=0.3)
    until(source, good, "the first frame")
    stream.show = lambda _number: picture(1)
    until(source, bad("frozen: the same picture"), "the word")
    stream.show = picture
    until(source, good, "a live picture")


def test_wrong_size_is_told_apart(stream: MjpegCamera, opened: Callable[..., CameraSource]) -> None:
    window = until(opened(url=stream.url, width=320, height=240), bad("wrong size"), "the word")
    assert window.problem == f"wrong size: expected 320×240 pixels, got {WIDTH}×{HEIGHT}"


def test_camera_that_is_set_to_another_size_while_it_streams_is_told_apart(
    stream: MjpegCamera, opened: Callable[..., CameraSource]
) -> None:
    source = opened(url=stream.url)
    until(source, good, "the first frame")
    stream.show = lambda number: picture(number, WIDTH * 2, HEIGHT * 2)
    window = until(source, bad("wrong size"), "the word")
    assert window.problem == f"wrong size: expected {WIDTH}×{HEIGHT} pixels, got {WIDTH * 2}×{HEIGHT * 2}"
    stream.show = picture
    until(source, good, "the first size again")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(lambda raw: raw[:-200], "without its end"), (lambda raw: b"rubbish" + raw[-20:], "no JPEG")],
    ids=["cut short", "rubbish"],
)
def test_damaged_frame_is_told_apart_and_the_stream_goes_on(
    stream: MjpegCamera, opened: Callable[..., CameraSource], spoil: Callable[[bytes], bytes], words: str
) -> None:
    source = opened(url=stream.url)
    until(source, good, "the first frame")
    stream.show = lambda number: spoil(jpeg(number))
    window = until(source, bad("damaged"), "the word")
    assert words in (window.problem or "") and window.data is None and window.encode is None
    stream.show = picture
    until(source, good, "a whole frame")


def test_part_whose_frame_is_damaged_is_deferred_with_its_name(
    stream: MjpegCamera, opened: Callable[..., CameraSource]
) -> None:
    source = opened(url=stream.url, trigger={"kind": "line", "port": _free_port()})
    wait_until(lambda: stream.sent > 3, 10, "the stream")
    stream.show = lambda number: jpeg(number)[:-200]
    wait_until(lambda: source.problem is not None, 10, "the damage")
    _say(source, b"SN-9\n")
    assert until(source, bad("damaged"), "the part").name.startswith("SN-9 ")


def test_frame_with_something_behind_its_end_is_whole(stream: MjpegCamera, opened: Callable[..., CameraSource]) -> None:
    stream.show = lambda number: jpeg(number) + bytes(20)
    assert until(opened(url=stream.url), good, "a frame").data is not None


def test_slow_camera_is_told_apart(stream: MjpegCamera, opened: Callable[..., CameraSource]) -> None:
    source = opened(url=stream.url, max_gap_s=0.3)
    until(source, good, "the first frame")
    stream.show = lambda _number: None
    window = until(source, bad("slow"), "the word")
    assert "expected one every 0.3 s" in (window.problem or "")
    stream.show = picture
    until(source, good, "frames again")


def test_each_part_that_the_trigger_names_gives_one_window_with_a_frame_after_it(
    stream: MjpegCamera, opened: Callable[..., CameraSource]
) -> None:
    source = opened(url=stream.url, trigger={"kind": "line", "port": _free_port()})
    wait_until(lambda: stream.sent > 3, 10, "the stream")
    assert source.read(0.2) is None, "no part, no window"
    sent = stream.sent
    _say(source, b"SN-1\nSN-2\r\n")
    windows = [until(source, good, "a part") for _ in range(2)]
    assert [window.name.split(" ")[0] for window in windows] == ["SN-1", "SN-2"]
    assert sent > 3 and source.read(0.2) is None and source.skipped == 0


def test_part_that_comes_while_the_camera_is_away_is_deferred(
    stream: MjpegCamera, opened: Callable[..., CameraSource]
) -> None:
    stream.plugged = False
    source = opened(url=stream.url, max_gap_s=0.4, trigger={"kind": "line", "port": _free_port()})
    _say(source, b"SN-3\n")
    window = until(source, bad("unplugged"), "the part")
    assert window.name.startswith("SN-3 ") and window.data is None
    stream.plugged = True
    wait_until(lambda: source.problem is None, 10, "the camera")
    _say(source, b"SN-4\n")
    assert until(source, good, "the next part").name.startswith("SN-4 ")


def test_two_parts_with_the_same_picture_are_frozen(stream: MjpegCamera, opened: Callable[..., CameraSource]) -> None:
    stream.show = lambda _number: picture(1)
    source = opened(url=stream.url, trigger={"kind": "line", "port": _free_port()})
    wait_until(lambda: stream.sent > 3, 10, "the stream")
    _say(source, b"A\n")
    assert until(source, lambda _window: True, "the first part").problem is None
    sent = stream.sent
    wait_until(lambda: stream.sent > sent + 3, 10, "another frame")
    _say(source, b"B\n")
    until(source, bad("frozen: the same picture to the last bit as of the part before"), "the second part")


def test_more_parts_than_memory_for_frames_are_deferred_not_lost(
    stream: MjpegCamera, opened: Callable[..., CameraSource]
) -> None:
    source = opened(url=stream.url, queue=2, trigger={"kind": "line", "port": _free_port()})
    wait_until(lambda: stream.sent > 3, 10, "the stream")
    _say(source, b"".join(b"P%d\n" % number for number in range(5)))
    time.sleep(0.3)  # let the camera serve them all before the first is read
    windows = [until(source, lambda _window: True, "a part") for _ in range(5)]
    assert [window.name.split(" ")[0] for window in windows] == [f"P{number}" for number in range(5)]
    assert [window.problem for window in windows[2:]] == ["busy: 2 parts waited already"] * 3


def test_free_running_at_a_rate_takes_no_more_than_that(
    stream: MjpegCamera, opened: Callable[..., CameraSource]
) -> None:
    source = opened(url=stream.url, trigger={"kind": "rate", "rate_hz": 20})
    until(source, good, "the first frame")
    started, count = time.monotonic(), 0
    while time.monotonic() - started < 1.0:
        count += source.read(0.05) is not None
    assert 10 <= count <= 22


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "exactly one of device, url and path"),
        ({"device": 0, "url": "rtsp://camera/1"}, "exactly one of device, url and path"),
        ({"device": 0, "width": 640}, "width and height"),
        ({"url": "ftp://camera"}, "url"),
        ({"device": 0, "colour": "red"}, "colour"),
        ({"device": 0, "trigger": {"kind": "whistle"}}, "gpio, line, modbus, rate"),
        ({"device": 0, "trigger": {"kind": "line"}}, "trigger line: port: Field required"),
    ],
)
def test_wrong_setting_is_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_source("camera", settings, seen=lambda _key: False, clock=SystemClock())


def test_missing_video_file_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        open_source("camera", {"path": str(tmp_path / "no.avi")}, seen=lambda _key: False, clock=SystemClock())


def test_password_in_the_address_is_not_recorded(stream: MjpegCamera, opened: Callable[..., CameraSource]) -> None:
    source = opened(url=stream.url.replace("http://", "http://operator:secret@"))
    window = until(source, lambda _window: True, "a frame")
    assert "secret" not in window.name and "127.0.0.1" in window.name


@pytest.mark.skipif("LINESIDE_CAMERA" not in os.environ, reason="LINESIDE_CAMERA names no camera of this machine")
def test_real_camera_gives_live_frames(opened: Callable[..., CameraSource]) -> None:
    source = opened(device=os.environ["LINESIDE_CAMERA"])
    assert until(source, good, "a frame", 20).data is not None


def jpeg(number: int) -> bytes:
    return encoded("JPEG", picture(number))


def _number(window: Window) -> int:
    return int(window.name.rpartition("#")[2])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _say(source: CameraSource, text: bytes) -> None:
    trigger: Any = source._trigger
    with socket.create_connection(("127.0.0.1", trigger.port)) as connection:
        connection.sendall(text)
