"""The base of every message, row and manifest part, and the field types that they share.

Rules:
- Frozen, and fields that a reader does not know are kept.
- Digests are SHA-256 in lower-case hexadecimal; times are Unix milliseconds in UTC.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

NAME_PATTERN = r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$"

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Version = Annotated[str, StringConstraints(pattern=r"^(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})$")]


Kind = Literal["model", "os"]
"""What a bundle holds: a model, or the operating system of a device."""


class WireModel(BaseModel):
    """A frozen pydantic model that keeps fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="null")


class BundleRef(WireModel):
    """Which bundle is meant: by name and version for people, by digest for machines."""

    name: Name
    version: Version
    digest: Digest
    size_bytes: int
    kind: Kind = Field(default="model", exclude_if=lambda kind: kind == "model")
    """Not said of a model, as before there was anything else."""

    @property
    def target_path(self) -> str:
        """The bundle's name in the TUF repository."""
        return target_path(self.name, self.version)


def target_path(name: str, version: str) -> str:
    """Return the TUF target path of a bundle, for example `phone_glass-1.0.0.lsb`."""
    return f"{name}-{version}.lsb"


def version_key(version: str) -> tuple[int, int, int]:
    """Return the version as numbers, so that versions can be compared."""
    major, minor, patch = version.split(".")
    return int(major), int(minor), int(patch)
