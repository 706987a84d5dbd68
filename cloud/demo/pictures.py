"""What the demo's cameras and microphone deliver: pictures and sounds made beforehand, fed into the devices' folders.

Rules:
- A feeder links files of a pool into a folder under running names, at a rate, as a camera would.
- A pool's `truth.csv` names a file and what it shows in its first two columns.
- What each file really shows is known here by its digest, for the scripted reviewer; no device ever sees it.
"""

import asyncio
import csv
import hashlib
import itertools
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cloud.demo.processes import not_left_behind
from cloud.errors import ConfigError

KEEP_IN_FOLDER = 400
"""Files left in a device's folder before the oldest are removed: a demo that runs for days must not fill a disk."""


@dataclass(frozen=True)
class Pool:
    """Files with what they really show."""

    files: tuple[Path, ...]
    truth: dict[str, str]
    """True label by SHA-256 of the file."""


async def make_pool(module: str, folder: Path, *arguments: str, cwd: Path) -> Pool:
    """Make a pool with one of the generators in `models`, unless it is there from before."""
    done = folder / ".done"
    wanted = " ".join((module, *arguments))
    if not done.exists() or done.read_text() != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        command = [sys.executable, "-m", module, "--out", str(folder), *arguments]
        process = await asyncio.create_subprocess_exec(*command, cwd=cwd, stdout=asyncio.subprocess.DEVNULL)
        async with not_left_behind(process):
            await process.wait()
        if process.returncode:
            raise ConfigError(f"{module} failed with exit code {process.returncode}", hint="its words stand above")
        done.write_text(wanted)
    return _read_pool(folder)


@dataclass
class Feeder:
    """Delivers files of a pool to one device's folder. Belongs to one event loop."""

    folder: Path
    pool: Pool
    rate_per_s: float
    seed: int
    paused: bool = False
    delivered: int = 0
    _names: list[Path] = field(default_factory=list)

    async def run(self) -> None:
        """Deliver for ever."""
        self.folder.mkdir(parents=True, exist_ok=True)
        rng = random.Random(self.seed)  # noqa: S311 - order of pictures
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        pool, order = self.pool, iter(_shuffled(self.pool.files, rng))
        while True:
            if pool is not self.pool:
                pool, order = self.pool, iter(_shuffled(self.pool.files, rng))
            if not self.paused:
                self._deliver(next(order))
            due_s = max(due_s + 1 / self.rate_per_s, loop.time() - 1)
            await asyncio.sleep(max(0.0, due_s - loop.time()))

    def _deliver(self, source: Path) -> None:
        self.delivered += 1
        name = self.folder / f"{self.delivered:07d}{source.suffix}"
        name.unlink(missing_ok=True)
        name.hardlink_to(source)
        self._names.append(name)
        if len(self._names) > KEEP_IN_FOLDER:
            self._names.pop(0).unlink(missing_ok=True)


def _shuffled(files: Sequence[Path], rng: random.Random) -> "itertools.chain[Path]":
    """Return the files in ever new orders, without end."""
    return itertools.chain.from_iterable(rng.sample(files, len(files)) for _ in itertools.count())


def _read_pool(folder: Path) -> Pool:
    truth: dict[str, str] = {}
    files: list[Path] = []
    with (folder / "truth.csv").open(newline="") as lines:
        for name, label, *_ in itertools.islice(csv.reader(lines), 1, None):
            path = folder / name
            files.append(path)
            truth[hashlib.sha256(path.read_bytes()).hexdigest()] = label
    return Pool(tuple(files), truth)
