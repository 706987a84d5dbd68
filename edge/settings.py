"""Reads a driver's own settings into its pydantic model, with errors that name the field: pure."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edge.errors import ConfigError


class Settings(BaseModel):
    """Base of all drivers' settings: frozen, and a field that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnySettings = TypeVar("AnySettings", bound=Settings)


def read_settings(kind: type[AnySettings], values: Mapping[str, Any], *, where: str) -> AnySettings:
    """Return the settings.

    Args:
        kind: the driver's model of settings.
        values: as the config has them.
        where: which driver, for the error's words, for example `source folder`.

    Raises:
        ConfigError: a field is unknown, missing or wrong; the message names it and what came.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "settings"
        known = ", ".join(kind.model_fields)
        got = "" if first["type"] == "missing" else f", got {first['input']!r}"
        raise ConfigError(f"{where}: {field}: {first['msg']}{got}", hint=f"known settings: {known}") from error
