"""From a stock system's image to a device that has decided and enrolled: `inject` and cloud-init alone between them.

Rules:
- The stock system is made here as its makers do it: Debian packages with cloud-init, a boot partition that holds a boot
  loader, an ext4 root. Nothing in it knows of this project.
- What is observed is what `boot` observes: the console's words and what the control plane shows.
"""

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from firmware_configs.commands.inject import Injection, inject
from firmware_configs.commands.write import Order, wanted
from firmware_configs.errors import BuildError
from firmware_configs.image.debian import need_tools
from firmware_configs.prove.boot import FIRST_DECISION, STEP_S
from firmware_configs.prove.plant import ControlPlane
from firmware_configs.prove.qemu import Guest, accelerator
from firmware_configs.stockimage import make_fat, put

TOOLS = {"mmdebstrap": "mmdebstrap", "genext2fs": "genext2fs", "resize2fs": "e2fsprogs", "sfdisk": "fdisk"}
PACKAGES = (
    "systemd", "systemd-sysv", "systemd-boot", "systemd-resolved", "udev", "dbus", "kmod", "initramfs-tools", "zstd",
    "linux-image-cloud-amd64", "python3", "cloud-init", "netplan.io", "iproute2", "ca-certificates", "e2fsprogs",
    "fdisk",
)  # fmt: skip
MIB = 2**20
BOOT_MIB = 96
ROOT_MIB = 2560
"""A cloud image's own size is about this; the wheels take a third of a gigabyte of it."""
OPTIONS = "root=PARTLABEL=root rw console=tty0 console=ttyS0,115200 panic=10"
TAKEN_IN = "took the payload in"
MAKING_S = 3600


@dataclass
class Story:
    """What was observed."""

    device: str
    where: str = ""
    payload_mb: float = 0.0
    made_s: float = 0.0
    injected_s: float = 0.0
    taken_in_wall_s: float = 0.0
    first_decision_uptime_s: float = 0.0
    verdict: str = ""
    decisions_at_console: int = 0
    enrolled: bool = False
    second_start_runs: bool = False
    load: float = 0.0


def stock(order: Order, folder: Path, tell: Callable[[str], None]) -> Story:
    """Make a stock image, inject a device, start it twice, and return what was observed.

    Args:
        order: the device, but for the control plane's address, the claim and the root.
        folder: for images, console and control plane; the stock image is used again if it is there.
        tell: is told what happens.

    Raises:
        BuildError: a step did not happen; the end of the console is in the message.
    """
    story, began_s = Story(order.device), time.monotonic()
    image = folder / "stock.img"
    if not image.exists():
        tell("a stock system from Debian's packages, with cloud-init …")
        make_stock(image, folder)
    story.made_s = round(time.monotonic() - began_s, 1)
    with ControlPlane(folder / "plane") as plane:
        plane.publish(order.bundles[0], default=True)
        more = {"cloud": plane.from_guest, "claim": plane.claim(order.device), "root": plane.root, "replace": True}
        done = inject(Injection(Order(**{**vars(order), **more}), image))
        story.where, story.injected_s = str(done["where"]), float(str(done["seconds"]))
        story.payload_mb = round(int(str(done["payload_bytes"])) / 1e6, 1)
        tell(f"injected into {story.where}: {story.payload_mb} MB in {story.injected_s} s; switched on")
        with Guest(order.to, folder, "amd64", accelerator("amd64")) as guest:
            guest.cable(plugged=True)
            _first_start(guest, plane, story, len(wanted(order).inputs), tell)
        story.second_start_runs = _starts_again(order.to, folder, tell)
    story.load = round(os.getloadavg()[0], 1)
    return story


def as_document(story: Story) -> dict[str, Any]:
    """Return the story for machines."""
    return asdict(story)


def make_stock(image: Path, folder: Path) -> None:
    """Make the disk of a stock Debian for clouds: an ESP that boots it, and its root.

    Raises:
        BuildError: a tool is missing or fails.
    """
    need_tools(TOOLS)
    root, boot = folder / "root.ext", folder / "boot.fat"
    names = ("vmlinuz", "initrd.img", "boot.efi")
    hooks = [
        'cp "$1"/boot/vmlinuz-* "$1"/boot/vmlinuz; cp "$1"/boot/initrd.img-* "$1"/boot/initrd.img',
        'cp "$1"/usr/lib/systemd/boot/efi/systemd-boot*.efi "$1"/boot/boot.efi',
        *(f"download /boot/{name} {folder}/{name}" for name in names),
        'chroot "$1" systemctl -q enable systemd-networkd systemd-resolved; : > "$1"/etc/machine-id',
    ]
    command = ["mmdebstrap", "--variant=minbase", "--format=ext2", f"--include={','.join(PACKAGES)}"]
    command += ['--aptopt=APT::Install-Recommends "false"', "--dpkgopt=path-exclude=/usr/share/doc/*"]
    command += [f"--customize-hook={hook}" for hook in hooks]
    _run([*command, "bookworm", str(root)])
    os.truncate(root, ROOT_MIB * MIB)
    _run(["tune2fs", "-O", "extents,has_journal", str(root)])
    _run(["e2fsck", "-f", "-p", str(root)], fine=(0, 1))
    _run(["resize2fs", str(root)])
    make_fat(boot, BOOT_MIB * MIB, "UEFI")
    entry, loader = folder / "entry", folder / "loader"
    entry.write_text(f"title Debian\nlinux /vmlinuz\ninitrd /initrd.img\noptions {OPTIONS}\n")
    loader.write_text("timeout 0\n")
    files = {"EFI/BOOT/BOOTX64.EFI": folder / "boot.efi", "vmlinuz": folder / "vmlinuz"}
    files |= {"initrd.img": folder / "initrd.img", "loader/entries/debian.conf": entry, "loader/loader.conf": loader}
    put(boot, 0, files)
    _compose(image, boot, root)


def _first_start(guest: Guest, plane: ControlPlane, story: Story, pictures: int, tell: Callable[[str], None]) -> None:
    guest.wait(lambda: TAKEN_IN in guest.text(), STEP_S, "the payload taken in by cloud-init")
    story.taken_in_wall_s = round(guest.since_s, 1)
    found = guest.wait(lambda: FIRST_DECISION.search(guest.text()), STEP_S, "a first decision")
    story.first_decision_uptime_s, story.verdict = float(found[1]), found[2]
    tell(
        f"took the payload in after {story.taken_in_wall_s} s; decided {found[1]} s after its kernel began: {found[2]}"
    )
    guest.wait(lambda: len(plane.decisions(story.device)) >= pictures, STEP_S, "its decisions at the control plane")
    story.decisions_at_console, story.enrolled = len(plane.decisions(story.device)), True
    tell(f"enrolled; the console shows {story.decisions_at_console} decisions")


def _starts_again(image: Path, folder: Path, tell: Callable[[str], None]) -> bool:
    """Cut the power, start once more, and see that the daemon runs by itself."""
    console = folder / "console.log"
    console.rename(folder / "console-first.log")
    with Guest(image, folder, "amd64", accelerator("amd64")) as guest:
        guest.wait(lambda: "running, record in" in guest.text(), STEP_S, "a daemon at the second start")
        took_in = TAKEN_IN in guest.text()
    tell("second start: the daemon runs" + (", after the payload was taken in again" if took_in else ""))
    return not took_in


def _compose(image: Path, boot: Path, root: Path) -> None:
    with image.open("wb") as file:
        file.truncate((BOOT_MIB + ROOT_MIB + 2) * MIB)
    lines = (f"start=1MiB, size={BOOT_MIB}MiB, type=U", f"size={ROOT_MIB}MiB, type=L, name=root")
    _run(["sfdisk", "--quiet", str(image)], text="\n".join(["label: gpt", *lines, ""]))
    for source, place in ((boot, 1), (root, 1 + BOOT_MIB)):
        _run(["dd", f"if={source}", f"of={image}", f"seek={place}", "bs=1M", "conv=notrunc,sparse", "status=none"])
    root.unlink()


def _run(command: list[str], *, text: str = "", fine: tuple[int, ...] = (0,)) -> None:
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=MAKING_S, env=environment, check=False
    )
    if done.returncode not in fine:
        raise BuildError(f"{command[0]} failed: {done.stderr.strip()[-600:]}")
