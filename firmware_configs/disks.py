"""Says which disks this machine has and why each may or may not be written.

Rules:
- `read_disks` is the driver: it reads sysfs and proc below folders that are passed in, and decides nothing.
- `refusals` is the rule: all reasons at once, each with what would have to change.
- What holds a disk is found through partitions, LVM, RAID and encryption: whoever uses a part uses the disk.
- A disk that cannot be told to be free is refused.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from firmware_configs.errors import RefusedError

SECTOR_BYTES = 512
"""The kernel counts in these, whatever a disk's own sectors are."""
NO_DISK = re.compile(r"^(ram|zram|dm-|md|sr|fd|nbd|mtdblock)\d*")
"""Block devices that are no medium of their own."""
SYSTEM_MOUNTS = ("/", "/boot", "/usr", "/var", "/home", "/etc", "/nix")
CARD_MAX_BYTES = 1 << 40
"""Larger than any card or stick that devices start from: rather somebody's archive."""
MEMBER_TYPES = {"LVM2_member": "a member of LVM", "linux_raid_member": "a member of a RAID", "crypto_LUKS": "encrypted"}


@dataclass(frozen=True)
class Disk:
    """One whole disk as the kernel shows it."""

    node: str
    """/dev/sdb"""
    size_bytes: int
    model: str
    serial: str
    bus: str
    """usb, mmc, nvme, virtio, ata or loop."""
    removable: bool
    read_only: bool
    sequence: str
    """The kernel's number of this medium; another one after it was changed (since Linux 5.15, else empty)."""
    mounts: tuple[str, ...] = ()
    swap: bool = False
    holders: tuple[str, ...] = ()
    """Device-mapper and RAID devices that lie on it."""
    members: tuple[str, ...] = ()
    """What its partitions say they belong to: LVM, a RAID, encryption."""

    @property
    def name_to_type(self) -> str:
        """What a person types to confirm: the model's name, or the node where it has none."""
        return self.model or self.node

    @property
    def identity(self) -> tuple[str, str, str, int]:
        """What must not change between listing a disk and writing it."""
        return (self.model, self.serial, self.sequence, self.size_bytes)


@dataclass(frozen=True)
class Roots:
    """Where the kernel shows itself; another place in tests."""

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    udev: Path = Path("/run/udev/data")


@dataclass
class _Use:
    mounts: set[str] = field(default_factory=set)
    swap: bool = False


def read_disks(roots: Roots | None = None) -> list[Disk]:
    """Return all disks, by their nodes."""
    roots = roots or Roots()
    uses = _uses(roots)
    folder = roots.sys / "block"
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [disk for name in names if not NO_DISK.match(name) and (disk := _read(roots, name, uses)) is not None]


def refusals(disk: Disk, need_bytes: int = 0, *, fixed: bool = False, listed: Disk | None = None) -> list[str]:
    """Return every reason why a disk must not be written; an empty list if it may.

    Args:
        disk: as it is now.
        need_bytes: what is to be written needs so much room.
        fixed: a person has said that a disk which cannot be taken out is meant.
        listed: as it was when the person saw it.
    """
    found = [f"mounted at {mount}" for mount in disk.mounts]
    if any(mount in SYSTEM_MOUNTS for mount in disk.mounts):
        found.insert(0, "this machine runs from it")
    if disk.swap:
        found.append("used as swap")
    found += [f"in use by {name}" for name in disk.holders]
    found += list(disk.members)
    if disk.read_only:
        found.append("write-protected")
    if disk.size_bytes < need_bytes:
        found.append(f"too small: {disk.size_bytes / 1e9:.2f} GB, and {need_bytes / 1e9:.2f} GB are needed")
    if not (disk.removable or disk.bus in ("usb", "mmc")) and not fixed:
        found.append(f"cannot be taken out ({disk.bus}): say --fixed-disk if it is meant")
    if disk.size_bytes > CARD_MAX_BYTES and not fixed:
        found.append(f"{disk.size_bytes / 1e12:.1f} TB is no card: say --fixed-disk if it is meant")
    if listed is not None and listed.identity != disk.identity:
        found.append(f"another disk than before: it was {listed.model or 'nameless'} {listed.serial}".rstrip())
    return found


def find_disk(node: str, roots: Roots | None = None) -> Disk:
    """Return the disk with this node.

    Raises:
        RefusedError: there is none, or it is a partition or no disk of its own.
    """
    roots = roots or Roots()
    name = os.path.basename(os.path.realpath(node))  # noqa: PTH119 - a link of /dev/disk/by-id
    if (roots.sys / "class" / "block" / name / "partition").exists():
        raise RefusedError(f"{node} is a partition", hint="name the whole disk; lineside-flash list shows them")
    for disk in read_disks(roots):
        if disk.node == f"/dev/{name}":
            return disk
    raise RefusedError(f"{node} is no disk", hint="lineside-flash list shows those that are there")


def _read(roots: Roots, name: str, uses: dict[str, _Use]) -> Disk | None:
    base = roots.sys / "block" / name
    sectors = _text(base / "size")
    if not sectors.isdigit() or int(sectors) == 0:
        return None  # a card reader without a card
    parts = [path for path in sorted(base.iterdir()) if (path / "partition").exists()]
    holders = {path.name for place in (base, *parts) for path in _children(place / "holders")}
    use = uses.get(name, _Use())
    vendor = _text(base / "device/vendor")
    maker = "" if vendor.startswith("0x") else vendor  # a number is no name
    model = f"{maker} {_text(base / 'device/model') or _text(base / 'device/name')}"
    return Disk(
        node=f"/dev/{name}",
        size_bytes=int(sectors) * SECTOR_BYTES,
        model=" ".join(model.split()),
        serial=_text(base / "device/serial") or _text(base / "serial"),
        bus=_bus(base, name),
        removable=_text(base / "removable") == "1",
        read_only=_text(base / "ro") == "1",
        sequence=_text(base / "diskseq"),
        mounts=tuple(sorted(use.mounts)),
        swap=use.swap,
        holders=tuple(sorted(holders)),
        members=tuple(_members(roots, [base, *parts])),
    )


def _bus(base: Path, name: str) -> str:
    real = str(base.resolve())
    for sign, bus in (("/usb", "usb"), ("/mmc", "mmc"), ("/nvme", "nvme"), ("/virtio", "virtio")):
        if sign in real:
            return bus
    return "loop" if name.startswith("loop") else "ata"


def _members(roots: Roots, places: list[Path]) -> list[str]:
    """Return what udev has found out about a disk and its partitions: members of LVM or a RAID, before it runs."""
    found = []
    for place in places:
        told = _text(roots.udev / f"b{_text(place / 'dev')}")
        kind = re.search(r"^E:ID_FS_TYPE=(.*)$", told, re.MULTILINE)
        if kind and kind[1] in MEMBER_TYPES:
            found.append(f"{place.name} is {MEMBER_TYPES[kind[1]]}")
    return found


def _uses(roots: Roots) -> dict[str, _Use]:
    """Return, for each disk's name, what is mounted from it and whether there is swap on it."""
    uses: dict[str, _Use] = {}
    for line in _text(roots.proc / "self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        number, point = fields.split()[2], fields.split()[4]
        source = rest.split()[1] if len(rest.split()) > 1 else ""
        link = roots.sys / "dev/block" / number
        start = link.resolve().name if link.exists() else Path(source).name
        for disk in _disks_below(roots, start):
            uses.setdefault(disk, _Use()).mounts.add(point.replace("\\040", " "))
    for line in _text(roots.proc / "swaps").splitlines()[1:]:
        for disk in _disks_below(roots, Path(line.split()[0]).name):
            uses.setdefault(disk, _Use()).swap = True
    return uses


def _disks_below(roots: Roots, name: str) -> set[str]:
    """Return the whole disks that a block device lies on, through partitions and everything that is made of others."""
    found: set[str] = set()
    waiting, seen = [name], set()
    while waiting:
        now = waiting.pop()
        place = roots.sys / "class" / "block" / now
        if now in seen or not place.exists():
            continue
        seen.add(now)
        slaves = [path.name for path in _children(place / "slaves")]
        if slaves:
            waiting += slaves
        elif (place / "partition").exists():
            waiting.append(place.resolve().parent.name)
        else:
            found.add(now)
    return found


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
