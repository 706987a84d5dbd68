"""The line that the soak runs: one daemon with two stations, its control plane, its cameras, and what can be broken.

Rules:
- `main` takes pictures out of a folder, `belt` frames from a camera in the network; each has a model of its own.
- The record lies on a small disk where one can be mounted; without, `disk` is None and no disk is filled.
"""

import contextlib
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil

from tests.badlink import BadLink
from tests.bundles import bundle_bytes
from tests.edge.sources.mjpeg import HEIGHT, WIDTH, MjpegCamera, picture
from tests.faults.camera import Camera, put
from tests.faults.plant import MODEL, START_S, Cloud, Device, as_root
from tests.faults.sameness import stored_in_cloud

BELT_MODEL = "belt_brightness"
STATIONS = ("main", "belt")
PICTURES_PER_S = 5.0
FRAMES_PER_S = 2.0
DEADLINE_MS = 2000
DISK_BYTES = 512 * 2**20
"""Room for an hour's record; filled up within seconds when it is the disk's turn."""
RECOVERY_S = 90.0
"""Longest way back from any fault: what takes a second on a quiet machine may starve on a busy one."""


class Line:
    """Everything, running while it is entered."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self.versions = 0
        """Versions published so far after the first one."""
        self.extra: list[str] = []
        """Names of pictures that faults delivered besides the camera's."""
        self.disk: Path | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.disk = self._stack.enter_context(small_disk(self.folder / "disk"))
        self.link = self._stack.enter_context(BadLink(0))
        self.cloud = self._stack.enter_context(Cloud(self.folder / "cloud", broker_by=self.link.port))
        self.link.target = self.cloud.broker_port
        self.belt = self._stack.enter_context(MjpegCamera())
        self.belt.show = self.passing = _Paced(FRAMES_PER_S)
        self.device = self._stack.enter_context(self._make_device())
        self.camera = self._stack.enter_context(Camera(self.device.inbox, PICTURES_PER_S, self.rng))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def delivered(self) -> set[str]:
        """Names of all pictures that were put into the folder."""
        return {*self.camera.names, *self.extra}

    def deliver(self, name: str, data: bytes) -> None:
        """Put one picture more into the folder."""
        put(self.device.inbox / name, data)
        self.extra.append(name)

    def wait_until_well(self) -> None:
        """Return when both stations decide by their networks again and the control plane stores what they decide.

        Raises:
            AssertionError: they do not within `RECOVERY_S`.
        """
        self.device.wait_for(self.device.has_record, START_S, "its record")
        begun_after = self.last_seq()
        for station in STATIONS:
            self.device.wait_for(
                lambda station=station: self._decided(station, begun_after), RECOVERY_S, f"{station} to decide again"
            )
        last = self.last_seq()
        self.device.wait_for(lambda: self.stored_through() >= last, RECOVERY_S, "the cloud to catch up")

    def last_seq(self) -> int:
        """Number of the newest row of the record, 0 before there is one."""
        return int(self.device.rows("SELECT coalesce(max(seq), 0) FROM rows")[0][0]) if self.device.has_record() else 0

    def stored_through(self) -> int:
        """Number up to which the device knows everything to be stored."""
        return int(self.device.rows("SELECT stored_through FROM state")[0][0])

    def events_after(self, seq: int, name: str) -> int:
        """How many events of a name were recorded after a row."""
        query = "SELECT count(*) FROM rows WHERE seq > ? AND kind = 'event' AND body LIKE ?"
        return int(self.device.rows(query, seq, f'%"name":"{name}"%')[0][0])

    def deferred_after(self, seq: int, station: str, reasons: tuple[str, ...]) -> int:
        """How many decisions of a station were deferred after a row, for one of these reasons."""
        marks = ",".join("?" * len(reasons))
        query = (
            "SELECT count(*) FROM rows WHERE seq > ? AND kind = 'decision' AND station = ? "
            f"AND json_extract(body, '$.reason') IN ({marks})"
        )
        return int(self.device.rows(query, seq, station, *reasons)[0][0])

    def new_version(self, kind: Any = "brightness") -> str:
        """Publish another version of the folder station's model and roll it out at once; return the version."""
        self.versions += 1
        version = f"1.{self.versions}.0"
        self.cloud.publish(bundle_bytes(version, kind=kind), self.folder / f"{version}.lsb")
        self.cloud.roll_out(version, [self.device.name])
        return version

    def inference(self) -> list[psutil.Process]:
        """The daemon's inference processes, oldest first; there must be some by now."""
        self.device.wait_for(lambda: self.device.children(), START_S, "an inference process")
        return self.device.children()

    def private_bytes(self) -> int | None:
        """Memory of the daemon and its children, None while it is not just the two that decide."""
        if not self.device.running or len(self.device.children()) != len(STATIONS):
            return None
        try:
            return self.device.private_bytes()
        except psutil.Error:
            return None  # one ended while it was looked at

    def caught_up(self) -> bool:
        """Whether every picture delivered was acted on, and every decision is in the cloud."""
        last = self.device.rows("SELECT coalesce(max(seq), 0) FROM rows WHERE kind = 'decision'")[0][0]
        decided = {name for (name,) in self.device.rows(_NAMES)}
        waiting = self.delivered - decided
        return len(waiting) <= len(self.unrecorded()) and stored_in_cloud(self.device.name, self.cloud) >= last

    def unrecorded(self, station: str = "main") -> list[dict[str, Any]]:
        """Parts of a station that took the safe action because their decision could not be recorded."""
        return [action for action in self.device.actions(station) if "not recorded" in action.get("why", "")]

    def _decided(self, station: str, after: int) -> bool:
        query = (
            "SELECT 1 FROM rows WHERE seq > ? AND kind = 'decision' AND station = ? "
            "AND json_extract(body, '$.scores') <> '{}' LIMIT 1"
        )
        return bool(self.device.rows(query, after, station))

    def _make_device(self) -> Device:
        folder = self.folder / "box-1"
        folder.mkdir()
        (folder / "belt.lsb").write_bytes(bundle_bytes(name=BELT_MODEL))
        source = {"kind": "camera", "url": self.belt.url, "frozen_after_s": 2}
        belt = {"model": BELT_MODEL, "bundle": "belt.lsb", "deadline_ms": DEADLINE_MS, "source": source}
        return Device(
            folder,
            cloud_url=self.cloud.url,
            claim=self.cloud.claim("box-1"),
            root=self.cloud.root,
            durability="power",
            fresh=True,
            data=self.disk / "data" if self.disk else None,
            station={"model": MODEL, "deadline_ms": DEADLINE_MS},
            more_stations={"belt": belt},
            probation={"windows": 30},
        )


_NAMES = "SELECT json_extract(body, '$.input.name') FROM rows WHERE kind = 'decision' AND station = 'main'"


class _Paced:
    """What the belt shows: bright and dark parts at a rate; `instead` takes their place while it is set."""

    def __init__(self, rate_per_s: float) -> None:
        self.instead: Callable[[], Any] | None = None
        self._every_s = 1 / rate_per_s
        self._next_s = 0.0

    def __call__(self, number: int) -> Any:
        now_s = time.monotonic()
        if now_s < self._next_s:
            return None
        self._next_s = now_s + self._every_s
        return self.part(number) if self.instead is None else self.instead()

    @staticmethod
    def part(number: int) -> Any:
        """Return a picture of a part, (height, width, 3) uint8."""
        return (picture(number, WIDTH, HEIGHT) // 3 + (160 if number % 2 else 0)).astype(np.uint8)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A disk of its own for a record, or None where none can be mounted."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "lineside-soak", str(folder)]
    if not as_root() or subprocess.run(command, check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
