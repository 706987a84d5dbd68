"""Says where everything lies on a disk: boot partition, two roots, the rest for data.

Rules:
- Pure: sizes in, partitions out. All identities come from the seed, so the same inputs give the same disk.
- The second root is empty: the first update of the system fills it. The data partition is not made here but on the
  device at its first start, to the end of whatever disk it finds.
- Roots have room to grow by a half, because an update must fit where its predecessor was.
"""

import uuid
from dataclasses import dataclass

from firmware_configs.errors import RefusedError
from firmware_configs.profile import Architecture

MIB = 2**20
BOOT_MIN_BYTES = 256 * MIB
"""A FAT32 wants 65,525 clusters, and two kernels with their initrds must fit beside a bundle."""
DATA_MIN_BYTES = 256 * MIB
TABLE_BYTES = MIB
"""The partition table at either end of the disk takes less; partitions begin at whole mebibytes."""
BOOT_LABEL = "LINESIDE"
ROOT_TYPES: dict[Architecture, str] = {
    "amd64": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    "arm64": "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
}
"""Of the Discoverable Partitions Specification."""
BOOT_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
TRIES = 3
"""Starts that an entry has before the other one is taken."""
_NAMESPACE = uuid.UUID("6f1f0e0a-3b0e-4d3f-9a64-0b8f6a0f5a11")


@dataclass(frozen=True)
class Partition:
    """One entry of the table; bytes from the beginning of the disk."""

    label: str
    type: str
    uuid: str
    start: int
    size: int


@dataclass(frozen=True)
class Layout:
    """All of a disk."""

    disk_uuid: str
    machine_id: str
    total: int
    partitions: tuple[Partition, ...]

    def partition(self, label: str) -> Partition:
        """Return the partition with this label."""
        return next(part for part in self.partitions if part.label == label)


def layout(identity: str, architecture: Architecture, total: int, root_bytes: int, boot_bytes: int) -> Layout:
    """Return where everything lies on a disk of `total` bytes.

    Args:
        identity: the seed's digest; everything that must be unique comes from it.
        architecture: of the root, which its partition's type names.
        total: size of the disk.
        root_bytes: size of the squashfs.
        boot_bytes: size of all files of the boot partition.

    Raises:
        RefusedError: the disk is too small.
    """
    slot = _up(root_bytes * 3 // 2, 64 * MIB)
    boot = max(BOOT_MIN_BYTES, _up(boot_bytes * 2 + 32 * MIB, 32 * MIB))
    need = TABLE_BYTES + boot + 2 * slot + DATA_MIN_BYTES + TABLE_BYTES
    if total < need:
        raise RefusedError(f"the disk has {total / 1e9:.2f} GB, and {need / 1e9:.2f} GB are needed")
    root_type = ROOT_TYPES[architecture]
    starts = (TABLE_BYTES, TABLE_BYTES + boot, TABLE_BYTES + boot + slot)
    parts = (
        Partition(BOOT_LABEL, BOOT_TYPE, _uuid(identity, "boot"), starts[0], boot),
        Partition("root-a", root_type, _uuid(identity, "root-a"), starts[1], slot),
        Partition("root-b", root_type, _uuid(identity, "root-b"), starts[2], slot),
    )
    return Layout(_uuid(identity, "disk"), uuid.UUID(_uuid(identity, "machine")).hex, total, parts)


def needed_bytes(root_bytes: int, boot_bytes: int) -> int:
    """Return the size of the smallest disk that these fit on."""
    slot, boot = _up(root_bytes * 3 // 2, 64 * MIB), max(BOOT_MIN_BYTES, _up(boot_bytes * 2 + 32 * MIB, 32 * MIB))
    return 2 * TABLE_BYTES + boot + 2 * slot + DATA_MIN_BYTES


def table_script(disk: Layout) -> str:
    """Return the table in sfdisk's words."""
    lines = ["label: gpt", f"label-id: {disk.disk_uuid}", "unit: sectors", "first-lba: 2048", ""]
    lines += [
        f'start={p.start // 512}, size={p.size // 512}, type={p.type}, uuid={p.uuid}, name="{p.label}"'
        for p in disk.partitions
    ]
    return "\n".join(lines) + "\n"


def kernel_options(disk: Layout, device: str, console: str, system: list[str], slot: str = "a", more: str = "") -> str:
    """Return the kernel's command line for a slot; `system` are the words that say which system it starts."""
    root, hostname = disk.partition(f"root-{slot}").uuid.lower(), device.replace("_", "-")
    words = [
        f"root=PARTUUID={root}", "rootfstype=squashfs", "ro", "quiet", "console=tty0", f"console={console}", "panic=10",
        "fsck.repair=yes", f"systemd.machine_id={disk.machine_id}", f"systemd.hostname={hostname}", more, *system,
    ]  # fmt: skip
    return " ".join(word for word in words if word)


def boot_entry(options: str, slot: str = "a") -> tuple[str, str]:
    """Return name and text of a slot's boot entry; its name counts the tries (Boot Loader Specification)."""
    text = (
        f"title Lineside {slot.upper()}\nsort-key lineside\nversion 1\n"
        f"linux /{slot}/vmlinuz\ninitrd /{slot}/initrd\noptions {options}\n"
    )
    return f"loader/entries/lineside-{slot}+{TRIES}.conf", text


def _uuid(identity: str, what: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{identity}/{what}")).upper()


def _up(size: int, unit: int) -> int:
    return -(-size // unit) * unit
