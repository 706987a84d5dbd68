"""Writes cards as a person does, with the command itself, and looks into them with other people's tools."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from firmware_configs.__main__ import app
from tests.bundles import bundle_bytes

CLAIM = "claim-token-0123456789"
TOOLS = ("mkfs.fat", "mcopy", "mmd", "sfdisk", "fsck.fat")
PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
MISSING = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
WHY = f"missing: {', '.join(MISSING)}; apt-get install dosfstools mtools fdisk"


class Card:
    """Orders that differ in what a test is about."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.image, self.folder = image, folder
        self.bundle = folder / "brightness-1.0.0.lsb"
        self.bundle.write_bytes(bundle_bytes())

    def write(self, to: Path, *more: str, name: str = "box-1") -> Result:
        """Write a card that works alone."""
        usual = ["write", "x86-box", "--to", str(to), "--device-name", name, "--image", str(self.image)]
        return CliRunner().invoke(app, [*usual, "--bundle", str(self.bundle), *more])

    def enrolling(self, to: Path, *more: str) -> Result:
        """Write a card that enrols."""
        return self.write(to, "--cloud", "https://192.0.2.10:8442", "--claim", CLAIM, *more)


def small_image(folder: Path) -> None:
    """Put an image as `build` leaves it into a folder, with files that are no system."""
    sizes = {"root.squashfs": 9 * 2**20 + 4096, "vmlinuz": 2**20, "initrd": 2**20 + 5, "boot.efi": 140_891}
    files = {}
    for name, size in sizes.items():
        block = hashlib.sha256(name.encode()).digest()
        content = (block * (size // 32 + 1))[:size]
        (folder / name).write_bytes(content)
        files[name] = {"size_bytes": size, "sha256": hashlib.sha256(content).hexdigest()}
    manifest = {
        "profile": "x86-box",
        "architecture": "amd64",
        "recipe": "0" * 64,
        "epoch": 1_795_816_357,
        "files": files,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def table(path: Path) -> list[dict[str, Any]]:
    """Return the partitions that sfdisk finds; an empty list if there is no table."""
    done = subprocess.run(["/usr/sbin/sfdisk", "--json", str(path)], capture_output=True, text=True, check=False)
    return list(json.loads(done.stdout)["partitiontable"]["partitions"]) if done.returncode == 0 else []


def boot_volume(path: Path, out: Path) -> Path:
    """Cut the boot partition out of a disk."""
    part = table(path)[0]
    with path.open("rb") as disk, out.open("wb") as volume:
        disk.seek(part["start"] * 512)
        for _ in range(part["size"] // 2048):
            volume.write(disk.read(2048 * 512))
    return out


def names_in(volume: Path) -> list[str]:
    """Return every file on a FAT volume."""
    done = subprocess.run(["mdir", "-b", "-/", "-i", str(volume), "::"], capture_output=True, text=True, check=True)
    return sorted(line.removeprefix("::/") for line in done.stdout.splitlines() if not line.endswith("/"))


def read_in(volume: Path, name: str) -> str:
    """Return a text file on a FAT volume."""
    return subprocess.run(["mtype", "-i", str(volume), f"::{name}"], capture_output=True, text=True, check=True).stdout
