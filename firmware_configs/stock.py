"""Turns a device's seed into what a stock operating system takes in at its first start: a NoCloud seed of cloud-init.

Rules:
- Pure: what the image is and what a person says in, files out.
- cloud-init does one thing at every start: it lets `install.sh` of the seed see to it that all is in place. What
  cloud-init does once is marked as done before it is, so a power cut would leave half of it for good.
- It does so before there is a network (`dsmode: local`), so that the first decision does not wait for one.
- The seed is on one partition, known by its number, wherever the system mounts it besides.
- JSON is YAML (1.2), and needs no library that writes it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from firmware_configs.errors import ConfigError
from firmware_configs.profile import Architecture, Profile
from firmware_configs.seed import SSH_KEY, Seed, Wanted, make_seed

PYTHONS = {"bookworm": "3.11", "noble": "3.12", "trixie": "3.13"}
"""Python of each system that can be injected into, by its codename."""
SEED_FOLDER = "lineside"
SEED_LABEL = "CIDATA"
"""The label by which cloud-init finds a NoCloud seed."""
MOUNTED_AT = "/efi"
"""Where the units of `rootfs/` look for the seed."""
UNITS = (
    "opt/lineside/bin/lineside-edge",
    "etc/systemd/resolved.conf.d/50-lineside.conf",
    "etc/systemd/system/lineside.service.d/10-image.conf",
    "usr/lib/sysusers.d/lineside.conf",
    "usr/lib/systemd/system/lineside.service",
    "usr/lib/systemd/system/lineside-announce.service",
    "usr/lib/systemd/system/lineside-claim.path",
    "usr/lib/systemd/system/lineside-claim.service",
    "usr/lib/systemd/system/lineside-clock.service",
    "usr/lib/systemd/system/lineside-clock.timer",
    "usr/lib/systemd/system/lineside-firstboot.service",
)
"""What of our own image's root a stock system gets as well."""
COMPILING = "usr/lib/systemd/system/lineside-compile.service"
"""Of stock systems only: our own image's code is compiled where it is made."""
ENABLED = (
    "lineside", "lineside-firstboot", "lineside-announce", "lineside-compile", "lineside-claim.path",
    "lineside-clock.timer",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """What wheels are for."""

    suite: str
    python: str
    extras: tuple[str, ...]


@dataclass(frozen=True)
class Stock:
    """What an image of a stock system turned out to be."""

    codename: str
    architecture: Architecture
    cloud_init: bool


def target_of(profile: Profile, stock: Stock) -> Target:
    """Return what the wheels must be for.

    Raises:
        ConfigError: this system is not known, has no cloud-init, or is for another processor.
    """
    mistakes = []
    if stock.codename not in PYTHONS:
        mistakes.append(f"expected one of {', '.join(PYTHONS)}, got {stock.codename or 'no system that can be read'}")
    if not stock.cloud_init:
        mistakes.append("it has no cloud-init, which takes the seed in (Raspberry Pi OS has it from Trixie on)")
    if stock.architecture != profile.board.architecture:
        mistakes.append(f"it is for {stock.architecture}, and {profile.name} is {profile.board.architecture}")
    if mistakes:
        raise ConfigError("\n".join(["this image cannot be used:", *(f"  {text}" for text in mistakes)]))
    kinds = profile.actuator.kinds
    extras = profile.os.extras if profile.os else ["server", *(kind for kind in ("gpio", "modbus") if kind in kinds)]
    return Target(stock.codename, PYTHONS[stock.codename], tuple(extras))


def stock_seed(profile: Profile, wanted: Wanted) -> Seed:
    """Return the seed of a device on a stock system: users and networks are cloud-init's.

    Raises:
        ConfigError: something that was said is wrong; the message lists all of it.
    """
    mistakes = [f"--ssh-key: {key[:40]!r} is no public key" for key in wanted.ssh_keys if not SSH_KEY.fullmatch(key)]
    if wanted.wifi is not None and not (1 <= len(wanted.wifi[0]) <= 32 and 8 <= len(wanted.wifi[1]) <= 63):
        mistakes.append("--wifi: expected NAME:PASSPHRASE with 1–32 and 8–63 characters")
    if mistakes:
        raise ConfigError("\n".join([f"{len(mistakes)} mistake(s)", *(f"  {text}" for text in mistakes)]))
    return make_seed(profile, replace(wanted, wifi=None, ssh_keys=()))


def cloud_init(wanted: Wanted, seed: Seed, volume: str) -> dict[str, str]:
    """Return the three files of a NoCloud seed, by name.

    Args:
        wanted: what a person says.
        seed: the device's seed; another one is another instance, for which cloud-init begins anew.
        volume: number of the FAT volume that carries it, as in `/dev/disk/by-uuid`.
    """
    place = f"/dev/disk/by-uuid/{volume}"
    command = (
        f"mountpoint -q {MOUNTED_AT} || {{ mkdir -p {MOUNTED_AT}; mount -o umask=0077,noatime {place} {MOUNTED_AT}; }};"
        f" exec sh {MOUNTED_AT}/{SEED_FOLDER}/install.sh {MOUNTED_AT}/{SEED_FOLDER}"
    )
    user: dict[str, object] = {
        "hostname": wanted.device.replace("_", "-"),
        "manage_etc_hosts": True,
        "ssh_pwauth": False,
        "disable_root": True,
        "bootcmd": [["sh", "-c", command]],
    }
    # Without a key nobody logs in: the system's own user has no password, and passwords are not taken.
    if wanted.ssh_keys:
        user["ssh_authorized_keys"] = list(wanted.ssh_keys)
    meta = {"instance-id": seed.identity[:32], "local-hostname": wanted.device.replace("_", "-"), "dsmode": "local"}
    return {
        "user-data": f"#cloud-config\n{json.dumps(user, indent=1)}\n",
        "meta-data": f"{json.dumps(meta, indent=1)}\n",
        "network-config": f"{json.dumps({'network': _network(wanted)}, indent=1)}\n",
    }


def seed_mount(volume: str) -> str:
    """Return the unit that mounts the seed's partition where the other units look for it."""
    return (
        "[Unit]\nDescription=Lineside: what the card was written with\n\n"
        f"[Mount]\nWhat=/dev/disk/by-uuid/{volume}\nWhere={MOUNTED_AT}\nType=vfat\nOptions=umask=0077,noatime\n"
    )


def sums(files: dict[str, bytes]) -> bytes:
    """Return the list by which the device finds what of the payload is damaged (sha256sum)."""
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items())]
    return "".join(lines).encode()


def enabled_links(units: Sequence[str] = ENABLED) -> dict[str, str]:
    """Return the links by which systemd starts the units, by their place in the archive."""
    wants = "etc/systemd/system/multi-user.target.wants"
    named = [unit if "." in unit else f"{unit}.service" for unit in units]
    return {f"{wants}/{unit}": f"/usr/lib/systemd/system/{unit}" for unit in named}


def _network(wanted: Wanted) -> dict[str, object]:
    # Not optional: only where some link is required does cloud-init go on as soon as there is one. Deciding waits for
    # neither: what is installed once starts by itself.
    wired = {"match": {"name": "e*"}, "dhcp4": True}
    found: dict[str, object] = {"version": 2, "ethernets": {"wired": wired}}
    if wanted.wifi is not None:
        name, passphrase = wanted.wifi
        found["wifis"] = {"wlan0": {"dhcp4": True, "optional": True, "access-points": {name: {"password": passphrase}}}}
    return found
