"""Judges a disk after a power cut, without starting it: table, boot partition, the system that would run, data, record.

Rules:
- What is asked is what the device needs to go on, and what it had promised by then (`Promised`); nothing else.
- Kept tools look: sfdisk, mtools, e2fsck, debugfs; boot entries are read by the device's own rules. A book of slots
  must be whole as it lies there: a device would begin a damaged one anew, and that is not asked of it here.
- ext4 and the record may recover first, as they do at a start; after that both must be without a fault.
- What did not change since the last state is not looked at again (`remember`).
"""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.osslots.entries import Entry, chosen, parse, system_of
from edge.wire.base import version_key
from firmware_configs.errors import BuildError
from firmware_configs.image.debian import ImageFile
from firmware_configs.layout import BOOT_LABEL
from firmware_configs.sparse import copy_sparse

TOOLS = {"sfdisk": "fdisk", "mcopy": "mtools", "e2fsck": "e2fsprogs", "debugfs": "e2fsprogs"}
DATA_LABEL = "lineside-data"
HOME = "lineside"
"""The daemon's folder on the data partition."""
RECORD = "data/lineside.sqlite"
REPAIRED = (0, 1)
"""What e2fsck says when it found nothing, or has replayed the journal and cleared what was deleted while open."""
TIMEOUT_S = 120

READ_BYTES = 2**20

Systems = dict[str, dict[str, ImageFile]]
"""Root, kernel and initrd of every system that was put onto the disk, by the digest of its packed file."""
Remember = Callable[[str, int, int, Callable[[], Any]], Any]
"""Called with a name, a stretch of the disk, and what finds the answer out: gives the one known for the same bytes."""


@dataclass(frozen=True)
class Promised:
    """What a device had said to others by a moment, so that it must be true after a cut."""

    decided: bool = False
    """It has decided: it has a good bundle."""
    decisions: frozenset[tuple[str, int]] = frozenset()
    """Incarnation and number of those that the control plane has acknowledged."""
    acted: frozenset[int] = frozenset()
    """Numbers of those whose actions were seen from outside."""
    confirmed: str | None = None
    """Version of the system that it has confirmed last."""
    left: str | None = None
    """Version of the system that it has left for good."""


@dataclass(frozen=True)
class Part:
    """One partition; bytes from the beginning of the disk."""

    label: str
    start: int
    size: int


@dataclass(frozen=True)
class Verdict:
    """What was found."""

    problems: tuple[str, ...]
    starts: str = ""
    """The system that would be started."""
    has_data: bool = False
    decisions: int = 0


def always(_name: str, _start: int, _size: int, find: Callable[[], Any]) -> Any:
    """Remember nothing: look every time."""
    return find()


def judge(disk: Path, systems: Systems, promised: Promised, work: Path, remember: Remember = always) -> Verdict:
    """Return what a start of this disk would find.

    Args:
        disk: after the cut; it is not changed.
        systems: every system that may lie on it.
        promised: what the device had said by then.
        work: a folder for what is taken out of the disk.
        remember: gives answers that are known for the same bytes.
    """
    try:
        parts = partitions(disk)
    except BuildError as error:
        return Verdict((str(error),))
    missing = [label for label in (BOOT_LABEL, "root-a", "root-b") if label not in parts]
    if missing:
        return Verdict((f"the table has no {', '.join(missing)}",))
    problems, starts = _Boot(disk, parts, systems, work, remember).judged(promised)
    data = parts.get(DATA_LABEL)
    if data is None:
        lost = ["the data partition is not in the table"] if promised.decided else []
        return Verdict((*problems, *lost), starts)
    more, decisions = _data_problems(disk, data, promised, work)
    return Verdict((*problems, *more), starts, has_data=True, decisions=decisions)


def partitions(disk: Path) -> dict[str, Part]:
    """Return the partitions by their labels.

    Raises:
        BuildError: there is no table that can be read.
    """
    told = _tool(["sfdisk", "--json", str(disk)])
    table: dict[str, Any] = json.loads(told.stdout)["partitiontable"] if told.returncode == 0 else {"label": "none"}
    if table["label"] != "gpt":
        raise BuildError(f"no GPT: {told.stderr.strip()[:200] or table['label']}")
    named = [(part.get("name", ""), part["start"] * 512, part["size"] * 512) for part in table["partitions"]]
    return {label: Part(label, start, size) for label, start, size in named}


class _Boot:
    """What the boot loader would find."""

    def __init__(self, disk: Path, parts: dict[str, Part], systems: Systems, work: Path, remember: Remember) -> None:
        self._disk, self._parts, self._systems = disk, parts, systems
        self._work, self._remember = work, remember

    def judged(self, promised: Promised) -> tuple[list[str], str]:
        """Return what is wrong with what would be started, and its version."""
        boot = self._parts[BOOT_LABEL]
        entries = self._remember("entries", boot.start, boot.size, self._entries)
        first = chosen(entries)
        if first is None:
            return ["no entry on the boot partition can be started"], ""
        # One that is left again by itself needs the one that it is left for.
        fallback = [other for other in entries if first.tries.left is not None and other.slot != first.slot]
        wrong = [(entry, self._wrong(entry)) for entry in (first, *fallback)]
        problems = [f"{entry.name}: {words}" for entry, words in wrong if words]
        system = system_of(first.options)
        version = system[1].version if system else ""
        return problems + _against_promise(version, promised), version

    def _entries(self) -> list[Entry]:
        files = self._taken("::/loader/entries/*")
        texts = [(path.name, path.read_bytes().decode(errors="replace")) for path in sorted(files.iterdir())]
        return [entry for name, text in texts if (entry := parse(name, text)) is not None]

    def _wrong(self, entry: Entry) -> str | None:
        """Return what is wrong with the system of an entry."""
        said = system_of(entry.options)
        files = self._systems.get(said[1].digest) if said else None
        if files is None:
            return "it does not name a system that was ever put here"
        boot, root = self._parts[BOOT_LABEL], self._parts[f"root-{entry.slot}"]
        key = f"{entry.slot} {files['root.squashfs'].sha256}"
        whole = self._remember(
            f"root {key}", root.start, root.size, lambda: self._root_is(root, files["root.squashfs"])
        )
        if not whole:
            return "its root is not whole"
        wrong = self._remember(f"kernel {key}", boot.start, boot.size, lambda: self._wrong_files(entry.slot, files))
        return f"not whole: {wrong}" if wrong else None

    def _root_is(self, root: Part, file: ImageFile) -> bool:
        hashed, end = hashlib.sha256(), root.start + file.size_bytes
        with self._disk.open("rb") as disk:
            for place in range(root.start, end, READ_BYTES):
                hashed.update(os.pread(disk.fileno(), min(READ_BYTES, end - place), place))
        return hashed.hexdigest() == file.sha256

    def _wrong_files(self, slot: str, files: dict[str, ImageFile]) -> str:
        folder = self._taken(f"::/{slot}/*")
        wrong = [name for name in ("vmlinuz", "initrd") if not _is(folder / name, files[name])]
        return ", ".join(wrong)

    def _taken(self, pattern: str) -> Path:
        folder = _empty(self._work / "boot")
        _tool(["mcopy", "-n", "-Q", "-i", f"{self._disk}@@{self._parts[BOOT_LABEL].start}", pattern, str(folder)])
        return folder


def _against_promise(version: str, promised: Promised) -> list[str]:
    if not version:
        return []
    found = []
    if promised.confirmed is not None and version_key(version) < version_key(promised.confirmed):
        found.append(f"{version} would be started, and {promised.confirmed} was confirmed")
    if version == promised.left:
        found.append(f"{version} would be started, and was left for good")
    return found


def _data_problems(disk: Path, data: Part, promised: Promised, work: Path) -> tuple[list[str], int]:
    """Return what is wrong with the data partition, and how many decisions its record holds."""
    image, home = work / "data.img", _empty(work / "home")
    copy_sparse(disk, image, data.start, data.size)
    repaired = _tool(["e2fsck", "-p", str(image)])
    if repaired.returncode not in REPAIRED:
        return [f"data: e2fsck cannot mend it by itself: {_words(repaired)}"], 0
    looked = _tool(["e2fsck", "-f", "-n", str(image)])
    if looked.returncode:
        return [f"data: not sound after its journal was replayed: {_words(looked)}"], 0
    _tool(["debugfs", "-R", f"rdump /{HOME}/data {home}", str(image)])
    record = home / RECORD
    if not record.is_file():
        return (["there is no record"] if promised.decided else []), 0
    problems, decisions = _record_problems(record, promised)
    return problems + _book_problems(home / "data", promised), decisions


def _record_problems(record: Path, promised: Promised) -> tuple[list[str], int]:
    try:
        connection = sqlite3.connect(record)
        try:
            whole = connection.execute("PRAGMA integrity_check").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('rows', 'state')").fetchone()
            if tables[0] < 2:
                return (["the record is empty"] if promised.decided else []), 0
            kept = {row[0] for row in connection.execute("SELECT seq FROM rows WHERE kind = 'decision'")}
            (incarnation,) = connection.execute("SELECT incarnation FROM state").fetchone() or ("",)
        finally:
            connection.close()
    except sqlite3.Error as error:
        return [f"the record cannot be read: {error}"], 0
    problems = [] if whole == "ok" else [f"the record is damaged: {whole}"]
    gone = sorted(pair for pair in promised.decisions if pair[0] != incarnation or pair[1] not in kept)
    if gone:
        problems.append(f"{len(gone)} decision(s) that the control plane has are gone, the first is {gone[0]}")
    undone = sorted(promised.acted - kept)
    if undone:
        problems.append(f"{len(undone)} decision(s) that were acted on are gone, the first is {undone[0]}")
    return problems, len(kept)


def _book_problems(folder: Path, promised: Promised) -> list[str]:
    """Return what is wrong with the books of slots: each readable, and a good bundle there where one had decided."""
    problems, good = [], 0
    for path in sorted(folder.glob("slots-*.json")):
        book = _book(path)
        if book is None:
            problems.append(f"{path.name} is damaged")
            continue
        current = next((slot for slot in book["slots"] if slot["ref"]["digest"] == book["current"]), None)
        if current is not None and current["ref"].get("kind") != "os":
            bundle = folder / "bundles" / f"{book['current']}.lsb"
            good += (found := bundle.is_file() and _digest(bundle) == book["current"])
            problems += [] if found else [f"{path.name}: the good bundle is not there or not whole"]
    return problems if good or problems or not promised.decided else ["no book names a good bundle"]


def _book(path: Path) -> dict[str, Any] | None:
    """Return a book of slots; None if it is not whole."""
    try:
        document = json.loads(path.read_bytes())
        text = json.dumps(document["value"], sort_keys=True)
        whole = hashlib.sha256(text.encode()).hexdigest() == document["sha256"]
    except (ValueError, KeyError, TypeError):
        return None
    return dict(document["value"]) if whole else None


def _is(path: Path, file: ImageFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size_bytes and _digest(path) == file.sha256


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _words(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(f"{done.stdout} {done.stderr}".split())[-300:]


def _tool(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MTOOLSRC": "/dev/null", "MTOOLS_SKIP_CHECK": "1"}
    environment["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False)
