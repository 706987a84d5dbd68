"""The settings of every trigger, in one light module."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from edge.settings import Settings


class GpioSettings(Settings):
    """Settings of the `gpio` trigger."""

    chip: Path = Path("/dev/gpiochip0")
    line: int | str
    """By the name that the chip gives it, or by its number."""
    edge: Literal["rising", "falling"] = "rising"
    bias: Literal["as_is", "pull_up", "pull_down", "disabled"] = "as_is"
    debounce_ms: float = Field(default=2.0, ge=0, le=1000)


class LineSettings(Settings):
    """Settings of the `line` trigger."""

    host: str = "127.0.0.1"
    """Where it listens; `0.0.0.0` for the whole plant network."""
    port: int = Field(ge=0, le=65535)


class ModbusSettings(Settings):
    """Settings of the `modbus` trigger."""

    host: str
    port: int = Field(default=502, ge=1, le=65535)
    unit: int = Field(default=1, ge=0, le=255)
    table: Literal["coil", "discrete_input"] = "coil"
    address: int = Field(ge=0, le=65535)
    """Counted from 0, as it travels."""
    poll_ms: float = Field(default=10.0, ge=1, le=10_000)
    reset: bool = False
    """Switch the coil off as soon as it was seen: the PLC may then set it for the next part."""
    timeout_s: float = Field(default=1.0, gt=0, le=30)


class RateSettings(Settings):
    """Settings of the `rate` trigger."""

    rate_hz: float = Field(gt=0, le=1000)


SETTINGS: Mapping[str, type[Settings]] = {
    "line": LineSettings,
    "gpio": GpioSettings,
    "modbus": ModbusSettings,
    "rate": RateSettings,
}
