"""Power is cut at every write, sync and name of the trusted metadata: no version that was accepted is forgotten.

A device that forgets what it has seen takes an old list of bundles again, which is what TUF is there to prevent.
"""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import trust
from tests.faults import disklog
from tests.faults.powercut import FATES, Disk, restore
from tests.tufrepo import TufRepo
from tests.webserver import WebServer

NAME = "glass-1.0.0.lsb"
VERSIONS = 3
PROGRAM = """
import os, sys
from pathlib import Path
from edge.trust import main

folder, version, *arguments = sys.argv[1:]
assert main(arguments) == 0
promises = os.open(Path(folder) / "promises", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(promises, f"{version}\\n".encode())
"""


class World:
    """A repository whose old states can be served again, and a device that asks."""

    def __init__(self, folder: Path, server: WebServer) -> None:
        self.folder, self._server = folder / "data", server
        self.trusted = self.folder / "tuf"
        self._repo = TufRepo()
        self._repo.add(NAME, b"a bundle")
        self._published: dict[int, dict[str, bytes]] = {}
        self._root = folder / "root.json"
        for version in range(1, VERSIONS + 1):
            self._published[version] = self._repo.publish()
            self._repo.step()
        self._root.write_bytes(self._published[1]["1.root.json"])

    def serve(self, version: int) -> None:
        """Serve the repository as it was at this version."""
        self._server.files = {f"/tuf/metadata/{name}": data for name, data in self._published[version].items()}

    @property
    def arguments(self) -> list[str]:
        """The command line of a question for a bundle."""
        url = f"{self._server.url}/tuf/metadata"
        return [
            *("--metadata-dir", str(self.trusted), "--metadata-url", url, "--json"),
            *("--root", str(self._root), "--target-name", NAME, "target"),
        ]

    def takes(self, version: int) -> bool:
        """Ask, in this process, while this version is served."""
        self.serve(version)
        return trust.main(self.arguments) == 0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with WebServer() as server:
        made = World(tmp_path, server)
        made.folder.mkdir()
        yield made


def test_trusted_metadata_whose_power_is_cut_anywhere_forgets_no_version(
    world: World, tmp_path: Path, rng: random.Random, capsys: pytest.CaptureFixture[str]
) -> None:
    library = disklog.built(tmp_path)
    log = b""
    for version in range(1, VERSIONS + 1):
        world.serve(version)
        command = [sys.executable, "-c", PROGRAM, str(world.folder), str(version), *world.arguments]
        log = disklog.logged(command, world.folder, library, tmp_path / "log")
    seen: list[tuple[int, dict[str, bytes]]] = []
    for disk, _, promises in disklog.moments(log):
        promised = int(promises[-1]) if promises else 0
        for state in _states(disk, rng):
            if (promised, state) not in seen:
                seen.append((promised, state))
                _keeps(world, state, promised)
    with capsys.disabled():
        print(f"\n{len(seen)} distinct states after a cut")
    assert len(seen) > 20 and promised == VERSIONS


def _states(disk: Disk, rng: random.Random) -> list[dict[str, bytes]]:
    names = {0, len(disk.pending), rng.randint(0, len(disk.pending))}
    return [disk.after_a_cut(rng, names=number, data=fate) for number in sorted(names) for fate in FATES]


def _keeps(world: World, state: dict[str, bytes], promised: int) -> None:
    """An older list than the one that was accepted is refused, and the newest is taken, whatever the cut has left."""
    restore(world.folder, state, "tuf/root_history")
    if promised > 1:
        assert not world.takes(promised - 1), f"version {promised} was forgotten"
    assert world.takes(VERSIONS)
