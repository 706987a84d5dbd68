"""Puts a disk together from an image and a seed, without mounting anything and without rights: regions to be written.

Rules:
- Kept tools do it (mkfs.fat, mtools, sfdisk, on files); this module says what goes where and when it is from.
- The same image, seed and size give the same bytes.
- The partition table is apart from the rest: whoever writes it does so last, when everything else was read back.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.osslots.entries import system_words
from edge.wire.base import BundleRef
from firmware_configs.errors import BuildError
from firmware_configs.image.debian import ImageManifest, need_tools
from firmware_configs.layout import (
    BOOT_LABEL,
    TABLE_BYTES,
    Layout,
    boot_entry,
    kernel_options,
    layout,
    table_script,
)
from firmware_configs.profile import Profile
from firmware_configs.seed import Seed
from firmware_configs.sparse import extents

TOOLS = {"mkfs.fat": "dosfstools", "mcopy": "mtools", "mmd": "mtools", "sfdisk": "fdisk"}
SEED_FOLDER = "lineside"
BOOT_FILES = {"amd64": "BOOTX64.EFI", "arm64": "BOOTAA64.EFI"}
LOADER = b"timeout 0\neditor no\nauto-firmware no\n"
DIRECTORY_ENTRY_BYTES = 4096
CHUNK_BYTES = 4 * 2**20
TOOL_TIMEOUT_S = 300


@dataclass(frozen=True)
class Region:
    """One stretch of the disk: where it begins, and where its bytes are."""

    name: str
    offset: int
    size: int
    source: Path
    source_offset: int = 0

    def chunks(self) -> Iterator[bytes]:
        """Give its bytes in pieces of at most four mebibytes."""
        with self.source.open("rb") as file:
            file.seek(self.source_offset)
            left = self.size
            while left and (chunk := file.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                yield chunk


@dataclass(frozen=True)
class Composed:
    """A whole disk: what is written first, and the table that makes it one, written last."""

    layout: Layout
    content: tuple[Region, ...]
    table: tuple[Region, ...]
    """Backup first: the disk becomes valid with the last write, that of its first sectors."""
    options: str
    """The kernel's command line."""


def boot_files_bytes(image: ImageManifest, seed: Seed) -> int:
    """Return how much the boot partition's files take, with what each costs in the directory."""
    kernel = sum(file.size_bytes for name, file in image.files.items() if name != "root.squashfs")
    return kernel + sum(len(content) + DIRECTORY_ENTRY_BYTES for content in seed.files.values())


def compose(
    profile: Profile,
    image: ImageManifest,
    folder: Path,
    seed: Seed,
    device: str,
    total: int,
    work: Path,
    system: BundleRef,
    more: str = "",
) -> Composed:
    """Return the regions of a disk of `total` bytes; files that they are read from lie in `work` and `folder`.

    Args:
        profile: the kind of device.
        image: what `folder` holds.
        folder: the image.
        seed: the device's own files.
        device: its name.
        total: size of the disk.
        work: an empty folder that lasts as long as the regions.
        system: the image as it would be rolled out: what the device says it runs.
        more: words for the kernel's command line besides the usual ones.

    Raises:
        BuildError: a tool is missing or fails.
        RefusedError: the disk is too small.
    """
    need_tools(TOOLS)
    root = image.root
    disk = layout(seed.identity, profile.board.architecture, total, root.size_bytes, boot_files_bytes(image, seed))
    options = kernel_options(disk, device, profile.board.console, system_words("a", system), more=more)
    boot = disk.partition(BOOT_LABEL)
    volume = _boot_volume(work, boot.size, seed, _tree(profile, folder, seed, options), image.epoch)
    table = _table(work, disk)
    backup = total - TABLE_BYTES
    return Composed(
        layout=disk,
        content=(
            Region("boot", boot.start, _used_bytes(volume), volume),
            Region("root-a", disk.partition("root-a").start, root.size_bytes, folder / "root.squashfs"),
        ),
        table=(
            Region("table (backup)", backup, TABLE_BYTES, table, backup),
            Region("table", 0, TABLE_BYTES, table, 0),
        ),
        options=options,
    )


def _tree(profile: Profile, folder: Path, seed: Seed, options: str) -> dict[str, bytes | Path]:
    """Return everything on the boot partition, by its path."""
    entry, text = boot_entry(options)
    tree: dict[str, bytes | Path] = {
        f"EFI/BOOT/{BOOT_FILES[profile.board.architecture]}": folder / "boot.efi",
        "loader/loader.conf": LOADER,
        entry: text.encode(),
        "a/vmlinuz": folder / "vmlinuz",
        "a/initrd": folder / "initrd",
    }
    return tree | {f"{SEED_FOLDER}/{name}": content for name, content in seed.files.items()}


def _boot_volume(work: Path, size: int, seed: Seed, tree: dict[str, bytes | Path], epoch: int) -> Path:
    volume, staging = work / "boot.fat", work / "boot"
    with volume.open("wb") as file:
        file.truncate(size)
    sectors = "1" if size <= 2 * 2**30 else "8"
    number = seed.identity[:8]
    _tool(["mkfs.fat", "-F", "32", "-s", sectors, "-n", BOOT_LABEL, "-i", number, "--invariant", str(volume)], epoch)
    for name, content in tree.items():
        target = staging / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            target.symlink_to(content.resolve())
        else:
            target.write_bytes(content)
            os.utime(target, (epoch, epoch))
    folders = sorted({str(parent) for name in tree for parent in Path(name).parents if str(parent) != "."})
    _tool(["mmd", "-i", str(volume), *(f"::{name}" for name in folders)], epoch)
    for folder in folders:
        inside = sorted(str(staging / name) for name in tree if str(Path(name).parent) == folder)
        if inside:
            _tool(["mcopy", "-i", str(volume), *inside, f"::{folder}/"], epoch)
    return volume


def _table(work: Path, disk: Layout) -> Path:
    """Return a file as large as the disk that holds nothing but its partition table."""
    path = work / "table"
    with path.open("wb") as file:
        file.truncate(disk.total)
    _tool(["sfdisk", "--quiet", str(path)], 0, table_script(disk))
    return path


def _used_bytes(path: Path) -> int:
    """Return the length of a file up to its last mebibyte that is not all zero; its holes are not read."""
    size, step, used = path.stat().st_size, 2**20, 0
    zeros = bytes(step)
    with path.open("rb") as file:
        for start, end in extents(file.fileno(), 0, size):
            for place in range(start // step * step, end, step):
                if place >= used and os.pread(file.fileno(), step, place) != zeros[: min(step, size - place)]:
                    used = min(place + step, size)
    return used


def _tool(command: list[str], epoch: int, text: str = "") -> None:
    # SOURCE_DATE_EPOCH is what mtools stamps files with, in UTC.
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": str(epoch),
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "MTOOLSRC": "/dev/null",
    }
    environment["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, env=environment, check=False
    )
    if done.returncode:
        words = re.sub(r"\s+", " ", done.stderr or done.stdout).strip()
        raise BuildError(f"{command[0]} failed: {words[:400]}")
