"""Says what a kind of device is: its board, memory, camera, actuator, what a power cut does to it, and its budget.

Rules:
- A profile is one TOML file in `profiles/`; its name is what devices report and bundles may ask for.
- Everything has a unit in its name and a bound; all mistakes of a file are told at once.
- `[os]` is there exactly for boards whose operating system is made here; for others `board.how` says what to do.
"""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge.wire.base import Name
from firmware_configs.errors import ConfigError

PROFILES = Path(__file__).parent / "profiles"
SYSTEM_MEMORY_MB = 300
"""What the whole system may take when it is idle; a budget for bundles begins above it."""

Architecture = Literal["amd64", "arm64"]


class Section(BaseModel):
    """A table of the file: frozen, and unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Board(Section):
    """What is flashed, and how it starts."""

    title: str = Field(min_length=1, max_length=80)
    architecture: Architecture
    boot: Literal["uefi", "vendor", "none"]
    """uefi: an image of our own with systemd-boot. vendor: the board needs its maker's boot files. none: a process."""
    how: str = Field(default="", max_length=400)
    """Where nothing is built here: what a person does instead."""
    console: str = Field(default="tty0", pattern=r"^[a-zA-Z0-9]+(,\d+)?$")
    """The serial console besides the screen."""
    disk_min_gb: float = Field(default=4, ge=1, le=64)


class Cpu(Section):
    """The processor."""

    model: str = Field(min_length=1, max_length=80)
    cores: int = Field(ge=1, le=256)


class Memory(Section):
    """Working memory."""

    total_mb: int = Field(ge=512, le=2**20)


class Camera(Section):
    """What it sees with."""

    kinds: list[Literal["usb", "csi", "network", "none"]] = Field(min_length=1)
    note: str = Field(default="", max_length=200)


class Actuator(Section):
    """What it acts with."""

    kinds: list[Literal["log", "gpio", "modbus", "mqtt", "webhook", "none"]] = Field(min_length=1)
    gpio_chip: str | None = Field(default=None, pattern=r"^/dev/gpiochip\d+$")


class Power(Section):
    """What happens when the power goes."""

    loss: Literal["any_moment", "announced"]
    """any_moment: like a pulled plug. announced: a battery lets it end in order."""
    clock_battery: bool
    watchdog_s: int = Field(ge=5, le=120)
    """The board's own watchdog resets it after so long without a sign of life."""


class Budget(Section):
    """What the daemon and its bundles may use."""

    cores: int = Field(ge=1, le=256)
    threads: int = Field(ge=1, le=64)
    """Of one network; more than one spins a core and seldom helps."""
    model_memory_mb: int = Field(ge=32, le=2**16)
    record_mb: int = Field(ge=64, le=2**20)
    load_s: float = Field(default=20, ge=1, le=600)
    """A network that is not loaded by then is given up: a slow board's, or an emulated one's, takes longer."""


class Os(Section):
    """What the image is made of."""

    suite: Literal["bookworm"] = "bookworm"
    python: Literal["3.11"] = "3.11"
    """The suite's own; wheels are taken for it."""
    kernel: str = Field(pattern=r"^linux-image-[a-z0-9-]+$")
    extras: list[Literal["server", "gpio", "modbus", "tflite", "voice"]] = Field(default_factory=list)
    packages: list[str] = Field(default_factory=list, max_length=64)
    initrd_modules: list[str] = Field(min_length=1, max_length=64)
    """Drivers that reach the disk: everything else is loaded from the root."""
    drop_modules: list[str] = Field(default_factory=list, max_length=64)
    """Folders of the kernel's drivers that this board has no use for."""
    wifi: bool = False


class Profile(Section):
    """The whole file."""

    name: Name
    board: Board
    cpu: Cpu
    memory: Memory
    camera: Camera
    actuator: Actuator
    power: Power
    budget: Budget
    os: Os | None = None

    @model_validator(mode="after")
    def _agrees(self) -> "Profile":
        budget, mistakes = self.budget, []
        if budget.cores > self.cpu.cores:
            mistakes.append(f"budget.cores: expected at most cpu.cores = {self.cpu.cores}, got {budget.cores}")
        if budget.threads > budget.cores:
            mistakes.append(f"budget.threads: expected at most budget.cores = {budget.cores}, got {budget.threads}")
        if budget.model_memory_mb > self.memory.total_mb - SYSTEM_MEMORY_MB:
            room = self.memory.total_mb - SYSTEM_MEMORY_MB
            mistakes.append(f"budget.model_memory_mb: expected at most {room}, got {budget.model_memory_mb}")
        if budget.record_mb > self.board.disk_min_gb * 1000 / 2:
            mistakes.append("budget.record_mb: more than half of the smallest disk")
        if (self.os is not None) != (self.board.boot == "uefi"):
            mistakes.append('os: the table belongs to boards with boot = "uefi", and to no other')
        if self.board.boot != "uefi" and not self.board.how:
            mistakes.append("board.how: nothing is built for this board, so it must say what a person does")
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self


def load_profile(path: Path) -> Profile:
    """Read and check one profile; its name is that of its file.

    Raises:
        ConfigError: it cannot be read, is not TOML, or holds mistakes; the message lists all of them.
    """
    try:
        document = tomllib.loads(path.read_text())
        return Profile.model_validate({"name": path.stem, **document})
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        mistakes = [f"  {'.'.join(map(str, m['loc'])) or 'profile'}: {m['msg']}" for m in error.errors()]
        raise ConfigError("\n".join([f"{path}: {len(mistakes)} mistake(s)", *mistakes])) from error


def find_profile(name: str) -> Profile:
    """Return a profile by its name, or that of a file with one.

    Raises:
        ConfigError: there is none, or it holds mistakes.
    """
    if name.endswith(".toml"):
        return load_profile(Path(name))
    known = {path.stem: path for path in PROFILES.glob("*.toml")}
    if name not in known:
        raise ConfigError(
            f"expected one of {', '.join(sorted(known))}, got {name!r}", hint="or a file of your own.toml"
        )
    return load_profile(known[name])


def all_profiles() -> list[Profile]:
    """Return the profiles that come with the program, by name."""
    return [load_profile(path) for path in sorted(PROFILES.glob("*.toml"))]
