"""Looks into the image of a stock system and puts files onto it, without mounting it and without rights.

Rules:
- Kept tools do it: sfdisk reads the table, blkid the volumes, debugfs the root, mtools the boot partition.
- The image that was given is not touched: a copy appears under its new name when it is whole.
- A boot partition with room takes everything. Where there is none (a cloud image's holds a boot loader and little
  else), a partition is added at the end of the disk, so that the system's own can still grow up to it.
"""

import json
import os
import re
import struct
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firmware_configs.errors import BuildError, ConfigError, RefusedError
from firmware_configs.image.debian import need_tools
from firmware_configs.profile import Architecture
from firmware_configs.stock import SEED_LABEL, Stock

TOOLS = {
    "sfdisk": "fdisk", "blkid": "util-linux", "debugfs": "e2fsprogs", "mcopy": "mtools", "mmd": "mtools",
    "mdir": "mtools", "mkfs.fat": "dosfstools",
}  # fmt: skip
TOOL_TIMEOUT_S = 600
MIB = 2**20
SECTOR_BYTES = 512
PACKED = {b"\xfd7zXZ\x00": "xz -d", b"\x1f\x8b": "gzip -d", b"\x28\xb5\x2f\xfd": "zstd -d", b"BZh": "bzip2 -d"}
QCOW = b"QFI\xfb"
CLUSTER_SLACK_BYTES = 64 * 1024
"""What a file may take beyond its size: one of the largest clusters, and its entry in the folder."""
MACHINES: dict[int, Architecture] = {0x3E: "amd64", 0xB7: "arm64"}
"""By e_machine of an ELF file."""
FAT_TYPE_GPT = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
FAT_TYPE_DOS = "c"


@dataclass(frozen=True)
class Volume:
    """One partition."""

    number: int
    start: int
    size: int
    type: str
    """What blkid calls its file system; empty for none."""
    uuid: str
    names: frozenset[str] = field(default_factory=frozenset)
    """What lies at its top, of a FAT."""
    free: int = 0


@dataclass(frozen=True)
class Looked:
    """An image, looked into."""

    stock: Stock
    table: str
    """gpt or dos."""
    volumes: tuple[Volume, ...]

    @property
    def boot(self) -> Volume | None:
        """The FAT partition that carries a NoCloud seed already, such as a Raspberry Pi's."""
        return next((v for v in self.volumes if v.type == "vfat" and "user-data" in v.names), None)


def look(image: Path) -> Looked:
    """Return what an image is.

    Raises:
        ConfigError: it cannot be read, is packed, or has no partitions.
    """
    need_tools(TOOLS)
    _check_raw(image)
    told = _run(["sfdisk", "--json", str(image)], check=False)
    if not told:
        raise ConfigError(f"{image}: no partitions are found", hint="is it the image of a whole disk?")
    document: dict[str, Any] = json.loads(told)["partitiontable"]
    volumes = tuple(_volume(image, number, part) for number, part in enumerate(document["partitions"], 1))
    roots = [v for v in volumes if v.type.startswith("ext")]
    found = [stock for volume in roots if (stock := _system(image, volume)) is not None]
    if not found:
        raise ConfigError(f"{image}: no Linux system is found on {len(volumes)} partitions")
    return Looked(found[0], document["label"], volumes)


def needed_bytes(files: dict[str, Path]) -> int:
    """Return the room that files take on a FAT."""
    return sum(path.stat().st_size + CLUSTER_SLACK_BYTES for path in files.values())


def copy(image: Path, to: Path, total: int | None) -> None:
    """Copy an image, holes as holes; make it as large as the disk that it is for, if that is said.

    Raises:
        RefusedError: it is larger than that already.
        BuildError: it cannot be copied.
    """
    _run(["cp", "--sparse=always", "--reflink=auto", str(image), str(to)])
    size = to.stat().st_size
    if total is not None and total < size:
        raise RefusedError(
            f"{image} is larger than {total / 1e9:.2f} GB: {size / 1e9:.2f} GB", hint="say another --size"
        )
    if total is not None and total > size:
        os.truncate(to, total)


def add_volume(image: Path, table: str, size: int, label: str) -> Volume:
    """Add a FAT partition at the end of an image, and return it.

    Raises:
        RefusedError: there is no room between the last partition and the end.
        BuildError: a tool fails.
    """
    if table == "gpt":
        _run(["sfdisk", "--quiet", "--relocate", "gpt-bak-std", str(image)])
    document = json.loads(_run(["sfdisk", "--json", str(image)]))["partitiontable"]
    last = max((p["start"] + p["size"]) * SECTOR_BYTES for p in document["partitions"])
    start = (image.stat().st_size - MIB - size) // MIB * MIB
    if start < last:
        need = last + size + 2 * MIB
        raise RefusedError(
            f"no partition of {image.name} has room, and behind the last one there is none for {size / 1e6:.0f} MB",
            hint=f"--size {-(-need // 2**30) + 1}G or more: the size of the disk that it is for",
        )
    kind = FAT_TYPE_GPT if table == "gpt" else FAT_TYPE_DOS
    line = f"start={start // SECTOR_BYTES}, size={size // SECTOR_BYTES}, type={kind}\n"
    _run(["sfdisk", "--quiet", "--append", "--no-reread", "--no-tell-kernel", str(image)], text=line)
    made = json.loads(_run(["sfdisk", "--json", str(image)]))["partitiontable"]["partitions"]
    number = next(i for i, p in enumerate(made, 1) if p["start"] * SECTOR_BYTES == start)
    with tempfile.TemporaryDirectory(prefix="lineside-flash-") as scratch:
        volume = Path(scratch) / "volume"
        make_fat(volume, size, label)
        _run(
            ["dd", f"if={volume}", f"of={image}", f"seek={start // MIB}", "bs=1M", "conv=notrunc,sparse", "status=none"]
        )
    return _volume(image, number, {"start": start // SECTOR_BYTES, "size": size // SECTOR_BYTES})


def make_fat(path: Path, size: int, label: str = SEED_LABEL) -> None:
    """Make a file that is an empty FAT volume."""
    with path.open("wb") as file:
        file.truncate(size)
    _run(["mkfs.fat", "-F", "32", "-s", "1", "-n", label, str(path)])


def volume_number(path: Path) -> str:
    """Return the number of a FAT volume, as in `/dev/disk/by-uuid`."""
    return _blkid(path, 0).get("UUID", "")


def put(image: Path, offset: int, files: dict[str, Path]) -> None:
    """Put files onto the FAT volume that begins at `offset`, in place of those of the same name.

    Raises:
        BuildError: a tool fails.
    """
    volume = f"{image}@@{offset}"
    folders = sorted({str(parent) for name in files for parent in Path(name).parents if str(parent) != "."})
    for folder in folders:
        _run(["mmd", "-D", "s", "-i", volume, f"::{folder}"], check=False)  # one that is there already is left
    for folder in ["", *folders]:
        inside = [name for name in sorted(files) if str(Path(name).parent) == (folder or ".")]
        for name in inside:
            _run(["mcopy", "-o", "-m", "-i", volume, str(files[name]), f"::{name}"])


def _check_raw(image: Path) -> None:
    try:
        with image.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise ConfigError(f"{image}: cannot read: {error.strerror}") from error
    for magic, command in PACKED.items():
        if head.startswith(magic):
            raise ConfigError(f"{image} is packed", hint=f"unpack it first: {command}")
    if head.startswith(QCOW):
        raise ConfigError(
            f"{image} is a qcow2, which no card takes", hint=f"qemu-img convert -O raw {image} {image.stem}.img"
        )


def _volume(image: Path, number: int, part: dict[str, Any]) -> Volume:
    start, size = part["start"] * SECTOR_BYTES, part["size"] * SECTOR_BYTES
    facts = _blkid(image, start)
    kind = facts.get("TYPE", "")
    if kind != "vfat":
        return Volume(number, start, size, kind, facts.get("UUID", ""))
    listed = _run(["mdir", "-b", "-i", f"{image}@@{start}", "::"], check=False)
    names = frozenset(line.removeprefix("::/").rstrip("/") for line in listed.splitlines())
    return Volume(number, start, size, kind, facts.get("UUID", ""), names, _free_bytes(image, start))


def _free_bytes(image: Path, start: int) -> int:
    found = re.search(r"([\d ]+) bytes free", _run(["mdir", "-i", f"{image}@@{start}", "::"], check=False))
    return int(found[1].replace(" ", "")) if found else 0


def _blkid(path: Path, offset: int) -> dict[str, str]:
    told = _run(["blkid", "-p", "-O", str(offset), "-o", "export", str(path)], check=False)
    return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)


def _system(image: Path, volume: Volume) -> Stock | None:
    """Return which system a root holds, None if it is no root."""
    place = f"{image}?offset={volume.start}"
    release = _run(["debugfs", "-R", "cat /usr/lib/os-release", place], check=False)
    codename = re.search(r'^VERSION_CODENAME="?(\w+)', release, re.MULTILINE)
    with tempfile.TemporaryDirectory(prefix="lineside-flash-") as scratch:
        sample = Path(scratch) / "sample"
        _run(["debugfs", "-R", f"dump /usr/bin/env {sample}", place], check=False)
        head = sample.read_bytes()[:20] if sample.exists() else b""
    if codename is None or len(head) < 20:
        return None
    machine = MACHINES.get(struct.unpack_from("<H", head, 18)[0])
    if machine is None:
        raise ConfigError(f"{image}: made for a processor that nothing is built for")
    asked = _run(["debugfs", "-R", "stat /usr/bin/cloud-init", place], check=False)
    return Stock(codename[1], machine, cloud_init="Inode:" in asked)


def _run(command: list[str], *, text: str = "", check: bool = True) -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MTOOLSRC": "/dev/null", "MTOOLS_SKIP_CHECK": "1"}
    environment["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, errors="replace", timeout=TOOL_TIMEOUT_S, env=environment,
        check=False,
    )  # fmt: skip
    if check and done.returncode:
        words = re.sub(r"\s+", " ", done.stderr or done.stdout).strip()
        raise BuildError(f"{command[0]} failed: {words[:400]}")
    return done.stdout
