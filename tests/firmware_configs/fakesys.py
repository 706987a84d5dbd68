"""A machine's disks as sysfs, proc and udev would show them, in a folder."""

from pathlib import Path

from firmware_configs.disks import Roots


class FakeSystem:
    """Disks that are added one by one; the folder is what `read_disks` reads."""

    def __init__(self, folder: Path) -> None:
        self.roots = Roots(folder / "sys", folder / "proc", folder / "dev", folder / "udev")
        self._mounts: list[str] = []
        self._swaps: list[str] = []
        self._numbers = 0
        for path in (self.roots.sys / "block", self.roots.sys / "class/block", self.roots.sys / "dev/block"):
            path.mkdir(parents=True)
        (self.roots.proc / "self").mkdir(parents=True)
        self.roots.udev.mkdir()

    def disk(
        self,
        name: str,
        *,
        gb: float = 32,
        model: str = "SD Card Reader",
        serial: str = "S1",
        bus: str = "usb1",
        removable: bool = True,
        read_only: bool = False,
        sequence: str = "7",
        parts: int = 0,
    ) -> None:
        """Add a disk with partitions."""
        place = self.roots.sys / "devices" / bus / "block" / name
        texts = {
            "size": str(int(gb * 1e9) // 512),
            "removable": str(int(removable)),
            "ro": str(int(read_only)),
            "diskseq": sequence,
            "device/model": model,
            "device/serial": serial,
        }
        self._fill(place, texts)
        (self.roots.sys / "block" / name).symlink_to(place)
        self._known(name, place)
        for number in range(1, parts + 1):
            part = place / f"{name}{number}"
            self._fill(part, {"partition": str(number)})
            self._known(part.name, part)

    def stacked(self, name: str, on: str) -> None:
        """Add a device-mapper or RAID device that lies on another block device."""
        place = self.roots.sys / "devices/virtual/block" / name
        self._fill(place, {"size": "2048"})
        (self.roots.sys / "block" / name).symlink_to(place)
        self._known(name, place)
        below = (self.roots.sys / "class/block" / on).resolve()
        (place / "slaves").mkdir()
        (place / "slaves" / on).symlink_to(below)
        (below / "holders").mkdir(exist_ok=True)
        (below / "holders" / name).symlink_to(place)

    def mount(self, name: str, point: str) -> None:
        """Mount a block device."""
        number = (self.roots.sys / "class/block" / name / "dev").read_text().strip()
        self._mounts.append(f"22 1 {number} / {point} rw - ext4 /dev/{name} rw")
        (self.roots.proc / "self/mountinfo").write_text("\n".join(self._mounts) + "\n")

    def swap(self, name: str) -> None:
        """Use a block device as swap."""
        self._swaps.append(f"/dev/{name} partition 1048572 0 -2")
        (self.roots.proc / "swaps").write_text("\n".join(["Filename Type Size Used Priority", *self._swaps]) + "\n")

    def content(self, name: str, kind: str) -> None:
        """Let udev say what lies on a block device."""
        number = (self.roots.sys / "class/block" / name / "dev").read_text().strip()
        (self.roots.udev / f"b{number}").write_text(f"S:disk/by-id/x\nE:ID_FS_TYPE={kind}\n")

    def _fill(self, place: Path, texts: dict[str, str]) -> None:
        self._numbers += 1
        place.mkdir(parents=True)
        for name, text in {"dev": f"8:{self._numbers}", **texts}.items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text(f"{text}\n")

    def _known(self, name: str, place: Path) -> None:
        (self.roots.sys / "class/block" / name).symlink_to(place)
        number = (place / "dev").read_text().strip()
        (self.roots.sys / "dev/block" / number).symlink_to(place)
