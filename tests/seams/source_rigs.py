"""Sets up each kind of source over real inputs that a script names: `g` a good one, `b` one that cannot be judged."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np

from edge.clock import SystemClock
from edge.imaging import encode_png
from edge.sources import open_source
from edge.sources.camera import CameraSource
from edge.sources.http import HttpSource
from edge.sources.interface import Source
from edge.store import Store
from edge.values import Window
from tests.edge.sources.fakestream import FakeDevice, microphone, silence, tone
from tests.edge.sources.mjpeg import HEIGHT, WIDTH, MjpegCamera, picture
from tests.edge.test_sound import pcm
from tests.rows import decision
from tests.seams.fakes import ScriptedSource

Seen = Callable[[str], bool]
FINITE = {"scripted", "video", "replay"}
"""What ends by itself."""
STORED = {"folder", "audio_file", "heard", "replay"}
"""Whose inputs are still there after a restart, and must not be decided again."""


@contextlib.contextmanager
def source_of(kind: str, script: str, folder: Path, seen: Seen = lambda _key: False) -> Iterator[Source]:
    """Open a source of a kind; the script's inputs come, or have come, in their order."""
    with contextlib.ExitStack() as stack:
        source: Source = stack.enter_context(RIGS[kind](script, folder, seen))
        stack.callback(source.close)
        yield source


def read_all(source: Source, count: int, timeout_s: float = 15) -> list[Window]:
    """Return the next windows and answer whoever waits for them."""
    windows: list[Window] = []
    until_s = time.monotonic() + timeout_s
    while len(windows) < count:
        assert time.monotonic() < until_s, f"{len(windows)} of {count} windows came in time"
        window = source.read(0.1)
        if window is None:
            continue
        windows.append(window)
        if window.answer is not None:
            window.answer(None)
    return windows


def _opened(kind: str, seen: Seen, **settings: Any) -> Source:
    return open_source(kind, settings, seen=seen, clock=SystemClock())


def _good(number: int) -> bytes:
    return encode_png(picture(number))


@contextlib.contextmanager
def _folder(script: str, folder: Path, seen: Seen) -> Iterator[Source]:
    for number, letter in enumerate(script):
        _put(folder / f"{number}.png", _good(number) if letter == "g" else b"rubbish")
    yield _opened("folder", seen, path=str(folder))


@contextlib.contextmanager
def _audio_file(script: str, folder: Path, seen: Seen) -> Iterator[Source]:
    for number, letter in enumerate(script):
        _put(folder / f"{number}.wav", pcm(np.full(400 + number, 0.1)) if letter == "g" else b"rubbish")
    yield _opened("audio_file", seen, path=str(folder))


@contextlib.contextmanager
def _heard(script: str, folder: Path, seen: Seen) -> Iterator[Source]:
    """Sound files in which speech is looked for: a word in each good one."""
    for number, letter in enumerate(script):
        said = np.concatenate([silence(0.3), tone(0.3, 400 + number), silence(0.6)]) / 32768
        _put(folder / f"{number}.wav", pcm(said) if letter == "g" else b"rubbish")
    yield _opened("audio_file", seen, path=str(folder), rate_hz=8000, segments={"kind": "energy"})


@contextlib.contextmanager
def _scripted(script: str, folder: Path, seen: Seen) -> Iterator[Source]:
    windows = [_scripted_window(number, good=letter == "g") for number, letter in enumerate(script)]
    yield ScriptedSource(windows)


def _scripted_window(number: int, *, good: bool) -> Window:
    data = picture(number) if good else None
    problem = None if good else "rubbish"
    return Window("scripted", str(number), str(number), "image/png", data, _good(number), problem=problem)


@contextlib.contextmanager
def _video(script: str, folder: Path, seen: Seen) -> Iterator[Source]:
    writer = cv2.VideoWriter(str(folder / "line.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 50, (WIDTH, HEIGHT))
    for number, letter in enumerate(script):
        writer.write(picture(number) if letter == "g" else picture(number) // 40)
    writer.release()
    yield _opened("camera", seen, path=str(folder / "line.avi"))


@contextlib.contextmanager
def _camera(script: str, folder: Path, seen: Seen) -> Iterator[Source]:
    """A camera in the network with a trigger: each part is shown before it is fired."""
    with MjpegCamera() as stream:
        source = _opened("camera", seen, url=stream.url, trigger={"kind": "line", "port": _free_port()}, max_gap_s=5)
        assert isinstance(source, CameraSource)
        feeder = threading.Thread(target=_show, args=(script, stream, source), daemon=True)
        feeder.start()
        yield source
        feeder.join(15)


def _show(script: str, stream: MjpegCamera, source: CameraSource) -> None:
    trigger: Any = source._trigger
    for number, letter in enumerate(script):
        stream.show = lambda sent, good=letter == "g": picture(sent) if good else picture(sent) // 40
        sent, until_s = stream.sent, time.monotonic() + 5
        while stream.sent < sent + 4 and time.monotonic() < until_s:
            time.sleep(0.01)
        taken = source._shots._number
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", trigger.port)) as connection:
            connection.sendall(b"part %d\n" % number)
        until_s = time.monotonic() + 5
        while source._shots._number == taken and not source.exhausted and time.monotonic() < until_s:
            time.sleep(0.01)


@contextlib.contextmanager
def _http(script: str, folder: Path, seen: Seen) -> Iterator[Source]:
    source = _opened("http", seen, port=0, answer_s=10)
    assert isinstance(source, HttpSource)
    feeder = threading.Thread(target=_post, args=(script, source.port), daemon=True)
    feeder.start()
    yield source
    source.close()
    feeder.join(15)


def _post(script: str, port: int) -> None:
    for number, letter in enumerate(script):
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(f"http://127.0.0.1:{port}/v1/decide", content=_good(number) if letter == "g" else b"rubbish")


@contextlib.contextmanager
def _replay(script: str, folder: Path, seen: Seen) -> Iterator[Source]:
    with Store.open(folder / "record.sqlite", clock=SystemClock(), durability="process") as store:
        for number, letter in enumerate(script):
            raw = _good(number) if letter == "g" else b"rubbish"
            row = decision(station="main", name=f"{number}.png", raw=raw)
            store.append_decision(row, input_key=str(number), keep=(raw, "image/png"), wants_outcome=False)
    yield _opened("replay", seen, path=str(folder / "record.sqlite"))


@contextlib.contextmanager
def _microphone(script: str, folder: Path, seen: Seen) -> Iterator[Source]:
    said = np.concatenate([silence(0.5), tone(0.4), silence(0.7)])
    lost = frozenset(round((1.6 * number + 0.7) / 0.02) for number, letter in enumerate(script) if letter == "b")
    device = FakeDevice(np.concatenate([said] * len(script) or [silence(0.1)]), dies=False, lose_before=lost)
    yield microphone(device, SystemClock())


def _put(path: Path, data: bytes) -> None:
    """Put a finished file there in one step, old enough to be taken at once."""
    hidden = path.with_name(f".{path.name}")
    hidden.write_bytes(data)
    an_hour_ago = time.time() - 3600
    os.utime(hidden, (an_hour_ago, an_hour_ago))
    hidden.rename(path)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


RIGS: dict[str, Any] = {
    "folder": _folder,
    "audio_file": _audio_file,
    "heard": _heard,
    "scripted": _scripted,
    "video": _video,
    "camera": _camera,
    "http": _http,
    "replay": _replay,
    "microphone": _microphone,
}
