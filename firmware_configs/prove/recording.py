"""Runs a virtual device through its life with a log of all that it writes, and notes what it had promised by when.

Rules:
- First start, deciding, a new bundle, a good and a broken system: in one log, whose parts have names.
- A promise is what somebody else has seen: an action at its receiver, decisions at the control plane, words on the
  console. How long the log is is looked at after that, so what the promise rests on stands before it in the log.
- The disk before its first start is kept beside the log: the two are all that crash states are made of. What was noted
  is written down part by part: a recording that was ended early is a shorter one.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from firmware_configs.commands.write import Order, image_of, model_of, write_card
from firmware_configs.image.debian import ImageFile, load_image
from firmware_configs.pack import ref_of
from firmware_configs.profile import find_profile
from firmware_configs.prove.boot import FIRST_DECISION, STEP_S, Story, gets
from firmware_configs.prove.os_update import Watched, make_systems, roll_out
from firmware_configs.prove.plant import ControlPlane
from firmware_configs.prove.qemu import HOST_FROM_GUEST, Guest, accelerator
from firmware_configs.prove.states import Promised, Systems
from firmware_configs.sparse import copy_sparse

LOOK_S = 0.5
DECISIONS = 25
"""So many at the control plane before anything is rolled out: the record has been through some of its own work."""
STATIONS = """
[store]
durability = "power"

[os]
slots = "systemd-boot"
tries = 2
probation_s = 20
idle_s = 0
wait_max_s = 5

[probation]
windows = 20
max_deadline_misses = 20

[station.main]
model = "{model}"
bundle = "{bundle}"
deadline_ms = 5000
isolation = "inline"
shadow_cpu_share = 0

[station.main.source]
kind = "folder"
path = "inbox"
loop = true
rate_per_s = 1.0

[station.main.actuator]
kind = "webhook"
url = "http://{host}:{port}/"
secret_file = "{secret}"
"""
"""It decides all the time, is asked to restart while it does, and acts where this program sees it. Its network runs in
the daemon: loading one in a child has a limit that emulation on a busy machine does not keep, and writes nothing."""
KEY_NAME = "webhook.key"


@dataclass(frozen=True)
class Seen:
    """One thing that was seen, and how long the log was just after it."""

    at: int
    what: str
    """decided, stored, acted, confirmed, left; or the name of a part of the log that begins here."""
    value: Any = None


@dataclass(frozen=True)
class Recording:
    """A log with what belongs to it."""

    base: Path
    log: Path
    seen: tuple[Seen, ...]
    systems: Systems
    device: str

    def promised(self, at: int) -> Promised:
        """Return what had been promised by the time that the log was so long."""
        by_then = [seen for seen in self.seen if seen.at <= at]

        def values(what: str) -> list[Any]:
            return [seen.value for seen in by_then if seen.what == what]

        return Promised(
            decided=bool(values("decided")),
            decisions=frozenset((pair[0], pair[1]) for pair in [*values("stored"), *values("acted")]),
            confirmed=next(reversed(values("confirmed")), None),
            left=next(reversed(values("left")), None),
        )

    def part(self, at: int) -> str:
        """Return the name of the part of the log that a place lies in."""
        return next((seen.value for seen in reversed(self.seen) if seen.what == "part" and seen.at <= at), "")


def load(folder: Path) -> Recording | None:
    """Return the recording in a folder, which goes as far as it was noted; None if there is none."""
    path = folder / "recording.json"
    if not path.is_file():
        return None
    document = json.loads(path.read_text())
    systems = {
        digest: {name: ImageFile.model_validate(file) for name, file in files.items()}
        for digest, files in document["systems"].items()
    }
    seen = tuple(Seen(**item) for item in document["seen"])
    return Recording(folder / "base.img", folder / "writes.log", seen, systems, document["device"])


def record(order: Order, publish: Path, folder: Path, tell: Callable[[str], None]) -> Recording:
    """Run a virtual device through its life and return the recording.

    Args:
        order: the card, but for stations, the control plane's address, the claim and the root.
        publish: a newer bundle that it gets over the network.
        folder: for disk, log, console, systems and control plane.
        tell: is told what happens.

    Raises:
        BuildError: a step did not happen; the end of the console is in the message.
    """
    profile = find_profile(order.profile)
    image = image_of(profile, order.image)
    made = make_systems(image, folder)
    systems = _catalogue(image, folder, [ref.digest for _, ref in made])
    notes = _Notes(folder / "writes.log")

    def keep() -> Recording:
        return _keep(folder, Recording(folder / "base.img", notes.log, tuple(notes.seen), systems, order.device))

    architecture = profile.board.architecture
    with ControlPlane(folder / "plane") as plane, _receiver(notes) as port:
        _write(order, image, plane, folder, port)
        copy_sparse(order.to, folder / "base.img")
        notes.part("first start")
        with Guest(order.to, folder, architecture, accelerator(architecture), write_log=notes.log) as guest:
            guest.cable(plugged=True)
            with notes.watching(plane, order.device):
                _live(guest, plane, order, publish, made, notes, keep, tell)
    return keep()


def _keep(folder: Path, recording: Recording) -> Recording:
    systems = {d: {n: f.model_dump() for n, f in files.items()} for d, files in recording.systems.items()}
    document = {"device": recording.device, "systems": systems, "seen": [vars(seen) for seen in recording.seen]}
    temporary = folder / ".recording.json"
    temporary.write_text(json.dumps(document))
    temporary.rename(folder / "recording.json")
    return recording


def _live(
    guest: Guest,
    plane: ControlPlane,
    order: Order,
    publish: Path,
    systems: list[tuple[Path, Any]],
    notes: "_Notes",
    keep: Callable[[], Recording],
    tell: Callable[[str], None],
) -> None:
    guest.wait(lambda: FIRST_DECISION.search(guest.text()), STEP_S, "a first decision")
    notes.add("decided", True)
    notes.part("deciding")
    tell("it decides")
    guest.wait(lambda: len(notes.of("stored")) >= DECISIONS, STEP_S, f"{DECISIONS} decisions at the control plane")
    keep()
    notes.part("new bundle")
    gets(guest, plane, Story(order.device, "", 0.0), publish, tell)
    watched = Watched(guest, plane, order.device)
    for (file, ref), name in zip(systems, ("good system", "broken system"), strict=True):
        keep()
        plane.publish(file, default=False)
        notes.part(name)
        update = roll_out(watched, ref, tell)
        notes.add({"good": "confirmed", "bad": "left"}.get(update.state, "undecided"), ref.version)
    decisions = len(notes.of("stored"))
    guest.wait(lambda: len(notes.of("stored")) >= decisions + 5, STEP_S, "decisions after all of it")
    notes.part("end")


class _Notes:
    """What was seen, each with how long the log was after it."""

    def __init__(self, log: Path) -> None:
        self.log, self.seen = log, list[Seen]()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.log.write_bytes(b"")

    def add(self, what: str, value: Any) -> None:
        with self._lock:
            self.seen.append(Seen(self.log.stat().st_size, what, value))

    def part(self, name: str) -> None:
        self.add("part", name)

    def of(self, what: str) -> list[Any]:
        with self._lock:
            return [seen.value for seen in self.seen if seen.what == what]

    @contextmanager
    def watching(self, plane: ControlPlane, device: str) -> Iterator[None]:
        """Note which decisions the control plane has, as long as the `with`."""
        thread = threading.Thread(target=self._watch, args=(plane, device), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _watch(self, plane: ControlPlane, device: str) -> None:
        known = set[tuple[str, int]]()
        while not self._ended.wait(LOOK_S):
            for decision in plane.decisions(device):
                pair = (decision["incarnation"], decision["seq"])
                if pair not in known:
                    known.add(pair)
                    self.add("stored", pair)


@contextmanager
def _receiver(notes: _Notes) -> Iterator[int]:
    """Take actions as the plant's software would, and note them; gives the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            incarnation, _, seq = self.headers["webhook-id"].rpartition("-")
            notes.add("acted", (incarnation, int(seq)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


def _write(order: Order, image: Path, plane: ControlPlane, folder: Path, port: int) -> None:
    stations, secret = folder / "stations.toml", folder / KEY_NAME
    secret.write_text("a key of this proof alone, told to nobody\n")
    bundle = order.bundles[0]
    words = {
        "model": model_of(bundle, bundle.read_bytes()),
        "bundle": bundle.name,
        "host": HOST_FROM_GUEST,
        "port": port,
    }
    stations.write_text(STATIONS.format(**words, secret=KEY_NAME))
    more = {"cloud": plane.from_guest, "claim": plane.claim(order.device), "root": plane.root, "replace": True}
    more |= {"image": image, "stations": stations, "bundles": [*order.bundles, secret]}
    write_card(Order(**{**vars(order), **more}))


def _catalogue(image: Path, folder: Path, packed: list[str]) -> Systems:
    """Return the files of the system on the card, of the good one and of the broken one, by their packed digests."""
    manifest = load_image(image)
    flashed = ref_of(manifest, image, manifest.version).digest
    broken = load_image(folder / "broken").files
    return {flashed: manifest.files, packed[0]: manifest.files, packed[1]: broken}
