"""The settings of every actuator, in one light module: a configuration is checked without their libraries."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from edge.actuators.interface import Output
from edge.settings import Settings

Line = int | str
Address = Annotated[int, Field(ge=0, le=0xFFFF)]


class GpioSettings(Settings):
    """Settings of the `gpio` actuator."""

    chip: Path = Path("/dev/gpiochip0")
    lines: dict[Output, Line] = Field(min_length=1)
    """Which line each output is, by the name the chip gives it, or by its number."""
    active_low: tuple[Output, ...] = ()
    """Outputs that are on when their line is low."""
    pulse_ms: float = Field(default=100.0, gt=0, le=60_000)
    timeout_ms: float = Field(default=100.0, gt=0, le=10_000)
    """A line is switched in microseconds; what takes longer is a board on a bus, or a box without time."""


class LogSettings(Settings):
    """Settings of the `log` actuator."""

    path: Path


class ModbusSettings(Settings):
    """Settings of the `modbus` actuator."""

    host: str
    port: int = Field(default=502, ge=1, le=65_535)
    unit: int = Field(default=1, ge=0, le=255)
    coils: dict[Output, Address] = Field(min_length=1)
    """Address of each output's coil, from 0."""
    pulse_ms: float = Field(default=100.0, ge=0, le=60_000)
    heartbeat_register: Address | None = None
    """Holding register that counts up, 0 to 65535 and again, as long as this box runs."""
    heartbeat_s: float = Field(default=1.0, ge=0.05, le=60)
    timeout_ms: float = Field(default=250.0, ge=10, le=10_000)
    """For each answer of the PLC."""


class MqttSettings(Settings):
    """Settings of the `mqtt` actuator."""

    host: str
    port: int = Field(default=1883, ge=1, le=65_535)
    topic: str = Field(min_length=1, max_length=512, pattern=r"^[^#+\x00]+$")
    username: str = ""
    password_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = None
    """Whom to trust; without it, whom the system trusts."""
    timeout_ms: float = Field(default=500.0, ge=10, le=10_000)
    """For the broker's acknowledgement."""


class NoneSettings(Settings):
    """The `none` actuator has no settings."""


class WebhookSettings(Settings):
    """Settings of the `webhook` actuator."""

    url: str = Field(pattern=r"^https?://\S+$")
    secret_file: Path
    """File with the key that both sides know, at least 24 characters."""
    timeout_ms: float = Field(default=5000.0, ge=10, le=60_000)
    """For each try."""
    backoff_max_s: float = Field(default=60.0, ge=0.05, le=3600)
    """Longest pause between two tries."""
    expire_h: float = Field(default=720.0, gt=0)
    """An action that nobody has taken for so long has failed; a month outlasts a plant's holidays."""


SETTINGS: Mapping[str, type[Settings]] = {
    "gpio": GpioSettings,
    "log": LogSettings,
    "modbus": ModbusSettings,
    "mqtt": MqttSettings,
    "none": NoneSettings,
    "webhook": WebhookSettings,
}
