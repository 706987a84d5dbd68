"""Turns a profile into everything that decides how its image comes out, and into a digest of that.

Rules:
- Pure: what is here depends on its arguments alone; two equal recipes give the same image, bit for bit.
- Only what the image is made of goes into the digest, so that a profile's title costs no new build.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from firmware_configs.profile import Architecture, Os

FORMAT = 1
"""Raised when the same inputs begin to give another image."""
BASE_PACKAGES = (
    "systemd", "systemd-sysv", "systemd-boot", "systemd-resolved", "systemd-timesyncd", "udev", "dbus", "kmod",
    "initramfs-tools", "zstd", "e2fsprogs", "python3", "iproute2", "ca-certificates", "openssh-server",
)  # fmt: skip
WIFI_PACKAGES = ("wpasupplicant", "wireless-regdb")
UNREAD_PATHS = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
)
"""What no device reads; copyright files are kept."""
INITRD_BASE_MODULES = ("squashfs", "overlay", "ext4")
MACHINES: dict[Architecture, str] = {"amd64": "x86_64", "arm64": "aarch64"}
"""The kernel's and the wheels' word for a processor."""
GLIBC = {"bookworm": 36, "trixie": 41, "noble": 39}
"""Minor version of the suite's C library: wheels for a newer one do not load."""
COMPRESSION = "zstd"
"""At its usual level, 15: Debian 12's sqfstar takes no other."""


@dataclass(frozen=True)
class Recipe:
    """All that decides how an image comes out."""

    profile: str
    architecture: Architecture
    os: Os
    wheels: tuple[tuple[str, str], ...]
    """Name and SHA-256 of each, sorted by name."""
    files: tuple[tuple[str, str], ...]
    """Path and SHA-256 of everything that is laid over the packages, and of the scripts that finish the root."""
    mirrors: tuple[str, ...]
    """Lines of sources.list; none for mmdebstrap's own, the release with its updates and security fixes."""
    epoch: int
    """Seconds since 1970: no file of the image is newer."""

    @property
    def version(self) -> str:
        """Version of the program in it."""
        return program_version(self.wheels)

    @property
    def digest(self) -> str:
        """SHA-256 over the recipe: the name of its image in the cache."""
        whole = {"format": FORMAT, **asdict(self), "os": self.os.model_dump(), "compression": COMPRESSION}
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def program_version(wheels: Iterable[tuple[str, str]]) -> str:
    """Return the version of the project's own wheel; 0.0.0 for one that is none of three numbers, or not there."""
    own = next((name.split("-")[1] for name, _ in wheels if name.startswith("lineside-")), "")
    return own if re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", own) else "0.0.0"


def packages(os: Os) -> list[str]:
    """Return the Debian packages that are asked for; those that they need come with them."""
    wanted = {*BASE_PACKAGES, *os.packages, os.kernel, *(WIFI_PACKAGES if os.wifi else ())}
    return sorted(wanted)


def initrd_modules(os: Os) -> str:
    """Return the list of drivers that reach the root."""
    return "".join(f"{name}\n" for name in [*INITRD_BASE_MODULES, *os.initrd_modules])


def wheel_platforms(architecture: Architecture, suite: str) -> list[str]:
    """Return the platform tags whose wheels run there, newest first.

    Every one down to the oldest is named: pip does not go downwards by itself and would take an older release or a
    pure one instead (PEP 600).
    """
    machine = MACHINES[architecture]
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC[suite], 4, -1)]
    return [*tags, f"manylinux2014_{machine}", f"linux_{machine}"]


def bootstrap_command(recipe: Recipe, out: str, work: str, scripts: str) -> list[str]:
    """Return the command that writes the root as a tar to its standard output, and kernel and bill beside it.

    Args:
        recipe: what to make.
        out: folder for `vmlinuz`, `initrd`, `boot.efi`, `dpkg-status` and `copyright.tar`.
        work: folder with `early.tar` and `overlay.tar`, laid over before and after the packages are set up.
        scripts: folder with `finish.sh` and `clean.sh`.
    """
    drop = " ".join(recipe.os.drop_modules)
    hooks = [
        f"--essential-hook=tar-in {work}/early.tar /",
        f"--customize-hook=tar-in {work}/overlay.tar /",
        f'--customize-hook={scripts}/finish.sh "$1" "{drop}"',
        *(f"--customize-hook=download /boot/{name} {out}/{name}" for name in ("vmlinuz", "initrd", "boot.efi")),
        f"--customize-hook=download /var/lib/dpkg/status {out}/dpkg-status",
        f"--customize-hook=tar-out /usr/share/doc {out}/copyright.tar",
        f'--customize-hook={scripts}/clean.sh "$1"',
    ]
    excluded = [f"--dpkgopt=path-exclude={path}" for path in UNREAD_PATHS]
    return [
        "mmdebstrap",
        "--variant=minbase",
        "--format=tar",
        f"--architectures={recipe.architecture}",
        f"--include={','.join(packages(recipe.os))}",
        '--aptopt=APT::Install-Recommends "false"',
        *excluded,
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        *hooks,
        recipe.os.suite,
        "-",
        *recipe.mirrors,
    ]


def squash_command(target: str) -> list[str]:
    """Return the command that packs a tar from its standard input into a squashfs; no rights are needed."""
    return ["sqfstar", "-comp", COMPRESSION, "-no-progress", "-quiet", "-no-xattrs", target]
