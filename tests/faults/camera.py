"""A camera for fault tests: small real pictures, each different, put into a folder at a rate from a thread.

Rules:
- A picture is written aside and renamed into place, as a camera's program should.
- No name comes twice in a folder, also not from a second camera: a new picture under an old name is a new part.
- One in ten is in between (handed to a person, with its bytes), one in fifty is cut short.
"""

import contextlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

SIDE = 24


class Camera:
    """Delivers while it is entered and not paused; may be entered once."""

    def __init__(self, folder: Path, rate_per_s: float, rng: random.Random) -> None:
        self.names: list[str] = []
        """Of the pictures delivered so far."""
        self._folder = folder
        self._before = sum(1 for _ in folder.glob("*.png"))
        self._rate_per_s = rate_per_s
        self._rng = rng
        self._stop = threading.Event()
        self._delivering = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def stop(self) -> None:
        """Deliver no more. Safe to call twice."""
        self._stop.set()
        self._thread.join()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Deliver nothing by itself meanwhile; what was begun is finished first."""
        with self._delivering:
            yield

    def deliver(self, count: int = 1) -> None:
        """Deliver some now, from the calling thread; not while it runs by itself."""
        for _ in range(count):
            name = f"{self._before + len(self.names) + 1:06d}.png"
            put(self._folder / name, self._picture())
            self.names.append(name)

    def _run(self) -> None:
        while not self._stop.wait(1 / self._rate_per_s):
            with self._delivering:
                self.deliver()

    def _picture(self) -> bytes:
        kind = self._rng.random()
        low, high = (110, 145) if kind < 0.1 else (5, 60) if kind < 0.55 else (190, 250)
        data = picture(self._rng.randint(low, high), self._rng)
        return data[: len(data) // 2] if kind > 0.98 else data


def picture(brightness: int, rng: random.Random, *, noise: int = 4) -> bytes:
    """Return a PNG of about this brightness, different every time unless it is without noise."""
    grain = np.random.default_rng(rng.randrange(2**32)).integers(-noise, noise + 1, (SIDE, SIDE, 3))
    pixels = np.clip(brightness + grain, 0, 255).astype(np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def put(path: Path, data: bytes) -> None:
    """Write a file aside and rename it into place."""
    part = path.with_name(f".{path.name}")
    part.write_bytes(data)
    part.rename(path)


def large_picture(rng: random.Random) -> bytes:
    """Return a PNG of a few hundred kilobytes that no model is sure of, different every time."""
    noise = np.random.default_rng(rng.randrange(2**32)).integers(64, 192, (320, 320, 3), np.uint8)
    return cv2.imencode(".png", noise)[1].tobytes()
