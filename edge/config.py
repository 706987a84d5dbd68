"""The device's configuration: one TOML file, checked whole before anything starts.

Rules:
- Every key has a unit in its name, a bound, and a default that suits an inspection box.
- All mistakes are reported at once, each with its place and, for an unknown key, the nearest known one.
- Relative paths are relative to the configuration file.
"""

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.errors import ConfigError
from edge.wire.base import Name
from edge.wire.terms import Mode


class Section(BaseModel):
    """A table of the file: frozen, and unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DeviceSection(Section):
    """Who and where this device is."""

    name: Name
    profile: str = Field(default="generic", max_length=64)
    site: str = Field(default="default", max_length=64)
    data: Path = Path("data")
    """Folder for the store, bundles and identity."""


class CloudSection(Section):
    """The control plane; without this table the device works alone."""

    url: str
    """Address of the control plane, for example `http://192.0.2.10:8400`."""
    claim: str | None = None
    """One-time token of enrolment; not needed once the device is enrolled."""
    root: Path | None = None
    """TUF root metadata that bundles are trusted by; without it no new bundle is taken."""


class StoreSection(Section):
    """The decision log."""

    durability: Literal["power", "process"] = "power"
    """`power`: on disk before the actuator moves. `process`: survives a kill, not a power cut; faster."""
    max_rows: int = Field(default=1_000_000, ge=1_000)
    max_input_bytes: int = Field(default=2 * 2**30, ge=2**20)


class LinkSection(Section):
    """How often the device speaks."""

    report_interval_s: float = Field(default=30.0, ge=0.5, le=3600)
    telemetry_window_s: float = Field(default=60.0, ge=1, le=3600)
    reconnect_max_s: float = Field(default=60.0, ge=1, le=3600)
    """Longest pause between two tries to reach broker or control plane: a minute spreads a thousand devices that
    come back at once; a few boxes on one cable may try every second."""


class ProbationSection(Section):
    """What a new bundle must survive before it counts as good."""

    windows: int = Field(default=50, ge=1)
    seconds: float = Field(default=10.0, ge=0)
    max_deadline_misses: int = Field(default=3, ge=0)
    max_memory_bytes: int = Field(default=512 * 2**20, ge=2**20)


class StationSection(Section):
    """One place where decisions are made."""

    model: Name
    bundle: Path | None = None
    """Bundle to begin with, before the control plane has given one."""
    mode: Mode = "partial"
    runtime: Literal["auto", "onnx", "tflite"] = "auto"
    isolation: Literal["process", "inline"] = "process"
    threads: int = Field(default=1, ge=1, le=8)
    deadline_ms: float = Field(default=1000.0, gt=0)
    audit_share: float = Field(default=0.02, ge=0, le=1)
    defer_budget_per_h: int | None = Field(default=None, ge=0)
    keep: Literal["none", "deferred", "all"] = "deferred"
    """Which inputs are kept: of deferred and audited decisions, of all, or none."""
    source: dict[str, Any]
    actuator: dict[str, Any] = Field(default_factory=lambda: {"kind": "log", "path": "actions.jsonl"})


class Config(Section):
    """The whole file."""

    device: DeviceSection
    cloud: CloudSection | None = None
    store: StoreSection = StoreSection()
    link: LinkSection = LinkSection()
    probation: ProbationSection = ProbationSection()
    station: dict[Name, StationSection] = Field(min_length=1)


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: it cannot be read, is not TOML, or holds mistakes; the message lists all of them.
    """
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}", hint="pass --config FILE") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        mistakes = "\n".join(f"  {_mistake(item)}" for item in error.errors())
        raise ConfigError(f"{path}: {error.error_count()} mistake(s)\n{mistakes}") from error
    return _absolute(config, path.resolve().parent)


def _mistake(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = _known_keys(error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        return f"{place}: unknown key" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")
    if error["type"] == "missing":
        return f"{place}: missing"
    return f"{place}: {error['msg']}, got {error['input']!r}"


def _known_keys(place: tuple[int | str, ...]) -> list[str]:
    sections: dict[str, type[Section]] = {
        "device": DeviceSection,
        "cloud": CloudSection,
        "store": StoreSection,
        "link": LinkSection,
        "probation": ProbationSection,
        "station": StationSection,
    }
    section = sections[str(place[0])] if place else Config
    return sorted(section.model_fields)


def _absolute(config: Config, base: Path) -> Config:
    def fix(path: Path | None) -> Path | None:
        return path if path is None else base / path

    stations = {
        name: station.model_copy(
            update={
                "bundle": fix(station.bundle),
                "source": _absolute_path(station.source, base),
                "actuator": _absolute_path(station.actuator, base),
            }
        )
        for name, station in config.station.items()
    }
    device = config.device.model_copy(update={"data": fix(config.device.data)})
    cloud = config.cloud.model_copy(update={"root": fix(config.cloud.root)}) if config.cloud else None
    return config.model_copy(update={"device": device, "cloud": cloud, "station": stations})


def _absolute_path(settings: dict[str, Any], base: Path) -> dict[str, Any]:
    return {key: str(base / value) if key == "path" else value for key, value in settings.items()}
