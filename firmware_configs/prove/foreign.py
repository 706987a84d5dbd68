"""Shows, without a boot, that a profile's wheels are complete and run on its processor, whatever this machine's is.

Rules:
- The wheels are those that its image would get; Python and its libraries are Debian's, unpacked and not set up.
- What runs is the device's own program, on a bundle and a picture; every module of it is imported besides.
- QEMU's user emulation shows a program this machine's /proc/cpuinfo, which libraries for Arm fall over: so it is shown
  that of a board.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from firmware_configs.errors import BuildError, ConfigError
from firmware_configs.image import wheels
from firmware_configs.image.debian import INTERPRETERS, need_tools
from firmware_configs.image.make import Inputs, gather, wheels_for
from firmware_configs.image.recipe import MACHINES
from firmware_configs.profile import Profile

PACKAGES = "python3,libstdc++6,zlib1g"
PROCESSORS = {"arm64": "cortex-a72", "amd64": "Nehalem"}
CPU_INFO = {
    "arm64": "".join(
        f"processor\t: {core}\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
        "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n"
        for core in range(4)
    )
}
"""Of a Raspberry Pi 4: four Cortex-A72."""
IMPORTS = """
import importlib, pkgutil, platform
import numpy, cv2, onnxruntime, pydantic, paho.mqtt.client, cryptography.x509, tuf.ngclient, urllib3, gpiod, pymodbus
import edge, firmware_configs.device.firstboot, firmware_configs.device.clock, firmware_configs.device.announce
print(platform.machine())
print(f"onnxruntime {onnxruntime.__version__}, OpenCV {cv2.__version__}, NumPy {numpy.__version__}")
for name in ("daemon", "station", "osdevice", "link", "update", "commands.run", "commands.infer"):
    importlib.import_module(f"edge.{name}")
"""
TIMEOUT_S = 1800


@dataclass
class Story:
    """What was observed."""

    profile: str
    wheels: int = 0
    site_mb: float = 0.0
    machine: str = ""
    versions: str = ""
    import_s: float = 0.0
    judged: list[str] = field(default_factory=list)
    """What the program said of the pictures."""


def foreign(profile: Profile, bundle: Path, pictures: list[Path], tell: Callable[[str], None]) -> Story:
    """Lay a profile's wheels out, and run them as its processor would.

    Raises:
        ConfigError: nothing is built for this profile.
        BuildError: a tool is missing, a wheel is not there, or something does not run.
    """
    if profile.os is None:
        raise ConfigError(f"{profile.name}: no image is built for it", hint=profile.board.how)
    architecture = profile.board.architecture
    need_tools({"mmdebstrap": "mmdebstrap", INTERPRETERS[architecture]: "qemu-user-static"})
    story = Story(profile.name)
    with tempfile.TemporaryDirectory(prefix="lineside-foreign-") as scratch:
        folder = Path(scratch)
        wheel, lock, _ = gather(Inputs(), folder)
        tell("wheels")
        found = wheels_for(architecture, profile.os, wheel, lock, folder)
        site, root = folder / "site", folder / "root"
        wheels.unpack(found, architecture, profile.os, site)
        story.wheels = len(found)
        story.site_mb = round(sum(f.stat().st_size for f in site.rglob("*") if f.is_file()) / 1e6, 1)
        tell(f"{story.wheels} wheels; Python for {MACHINES[architecture]}")
        _unpack_python(profile, root)
        run = _Runner(profile, root, site)
        began_s = time.monotonic()
        story.machine, story.versions = run("-c", IMPORTS).splitlines()[:2]
        story.import_s = round(time.monotonic() - began_s, 1)
        tell(f"imported on {story.machine} in {story.import_s} s: {story.versions}")
        story.judged = run("-m", "edge", "infer", str(bundle), *map(str, pictures), "--runtime", "onnx").splitlines()
    if story.machine != MACHINES[architecture]:
        raise BuildError(f"expected {MACHINES[architecture]}, the program says {story.machine}")
    return story


class _Runner:
    """Runs the profile's Python."""

    def __init__(self, profile: Profile, root: Path, site: Path) -> None:
        assert profile.os is not None
        architecture = profile.board.architecture
        processor = ["-cpu", PROCESSORS[architecture]]
        python = str(root / "usr/bin" / f"python{profile.os.python}")
        self._command = [INTERPRETERS[architecture], *processor, "-L", str(root), python]
        self._environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}

    def __call__(self, *words: str) -> str:
        command = [*self._command, *words]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, env=self._environment, check=False
        )
        if done.returncode:
            raise BuildError(f"{' '.join(words)[:60]!r} fails there: {(done.stderr or done.stdout).strip()[-600:]}")
        return done.stdout


def _unpack_python(profile: Profile, root: Path) -> None:
    assert profile.os is not None
    architecture = profile.board.architecture
    command = ["mmdebstrap", "--variant=extract", f"--architectures={architecture}", f"--include={PACKAGES}"]
    command += ['--aptopt=APT::Install-Recommends "false"', profile.os.suite, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise BuildError(f"Python cannot be unpacked: {done.stderr.strip()[-400:]}")
    if architecture in CPU_INFO:
        (root / "proc").mkdir(exist_ok=True)
        (root / "proc/cpuinfo").write_text(CPU_INFO[architecture])
