"""Gets the project's wheel and those that it needs, for the target's processor and Python, and lays them out.

Rules:
- Versions and digests are those of the lock file; a wheel with another digest is refused before it is unpacked.
- Nothing is built for the target: a dependency without a wheel for it is an error that names it.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from firmware_configs.errors import BuildError
from firmware_configs.image.recipe import wheel_platforms
from firmware_configs.profile import Architecture

OWN = "lineside"
NOT_ON_DEVICES = ("cloud", "export", "benchmarks")
"""Packages of the wheel that are for other machines."""
TIMEOUT_S = 900


class Target(Protocol):
    """What wheels are for, besides the processor."""

    @property
    def suite(self) -> str:
        """The system's name, for its C library."""

    @property
    def python(self) -> str:
        """Its Python, such as 3.11."""

    @property
    def extras(self) -> Sequence[str]:
        """Of the project."""


def project_root() -> Path | None:
    """Return the checkout that this program runs from, if it is one."""
    root = Path(__file__).parents[2]
    return root if (root / "pyproject.toml").is_file() and (root / "requirements.lock").is_file() else None


def own_wheel(root: Path, out: Path) -> Path:
    """Build the project's wheel from a checkout.

    Raises:
        BuildError: it cannot be built.
    """
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(root)]
    _run(command, "the project's wheel cannot be built")
    (wheel,) = out.glob(f"{OWN}-*.whl")
    return wheel


def locked(text: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Return version and permitted SHA-256 digests of each distribution in a lock file."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        head = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", block)
        if head:
            found[normalised(head[1])] = (head[2], frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", block)))
    return found


def download(wheel: Path, lock: Path, architecture: Architecture, os: Target, out: Path) -> list[Path]:
    """Bring the wheels that a device needs into `out`, and return them with the project's own, sorted by name.

    Raises:
        BuildError: one is not there for the target, or is not the one that the lock names.
    """
    pins = locked(lock.read_text())
    constraints = out / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, (version, _) in sorted(pins.items())))
    wanted = f"{wheel}[{','.join(sorted(os.extras))}]" if os.extras else str(wheel)
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(out),
        "--constraint", str(constraints), *_target(architecture, os), wanted,
    ]  # fmt: skip
    _run(command, "the wheels for the device cannot be had")
    constraints.unlink()
    found = sorted(out.glob("*.whl"))
    wrong = [path.name for path in found if not _is_locked(path, pins)]
    if wrong:
        raise BuildError(f"not the files that {lock.name} names: {', '.join(wrong)}", hint="make the lock file anew")
    return found


def unpack(wheels: list[Path], architecture: Architecture, os: Target, out: Path) -> None:
    """Lay the wheels out in one folder as they are imported from, without tests and what is not for devices.

    Raises:
        BuildError: they do not fit together.
    """
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index",
        "--no-compile", "--target", str(out), *_target(architecture, os), *map(str, wheels),
    ]  # fmt: skip
    _run(command, "the wheels cannot be laid out")
    for folder in [*(out / name for name in NOT_ON_DEVICES), out / "bin"]:
        shutil.rmtree(folder, ignore_errors=True)
    for folder in [path for path in out.rglob("*") if path.name in ("tests", "test") and path.is_dir()]:
        shutil.rmtree(folder, ignore_errors=True)
    # pip notes the path that a wheel was installed from, which differs between two builds.
    for path in [*out.glob("*.dist-info/direct_url.json"), *out.glob("*.dist-info/RECORD")]:
        path.unlink()


def normalised(name: str) -> str:
    """Return a distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _target(architecture: Architecture, os: Target) -> list[str]:
    tag = f"cp{os.python.replace('.', '')}"
    platforms = [word for name in wheel_platforms(architecture, os.suite) for word in ("--platform", name)]
    abis = [word for name in (tag, "abi3", "none") for word in ("--abi", name)]
    return [
        "--only-binary=:all:", "--implementation", "cp", "--python-version", os.python, *abis, *platforms,
    ]  # fmt: skip


def _is_locked(path: Path, pins: dict[str, tuple[str, frozenset[str]]]) -> bool:
    name = normalised(path.name.split("-")[0])
    return name == OWN or (name in pins and sha256(path) in pins[name][1])


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-3:]
        raise BuildError(f"{what}: {' '.join(told)[:600]}")
