"""What was written where, as JSON: for whoever keeps a list of cards, and for `verify` later.

Rules:
- Holds no secret: of the claim its SHA-256 only.
- The tables are in it, so that a medium which something has re-partitioned since is found out. A device that has
  started enters its data partition: then the tables differ and the rest is the same, and `verify` says so.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.wire.base import Digest, Name
from firmware_configs.errors import ConfigError
from firmware_configs.writer import Written


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class WrittenRegion(_Part):
    """One region and its digest."""

    name: str
    offset: int = Field(ge=0)
    size: int = Field(ge=0)
    sha256: Digest


class Medium(_Part):
    """What it was written to."""

    path: str
    size_bytes: int
    model: str = ""
    serial: str = ""


class Receipt(_Part):
    """The whole document."""

    format: int = 1
    device: Name
    site: str
    profile: Name
    seed: Digest
    image: Digest
    """SHA-256 of the root."""
    cloud: str | None = None
    claim_sha256: Digest | None = None
    bundles: dict[str, Digest] = Field(default_factory=dict)
    machine_id: str
    disk: str = ""
    """Identity of its partition table, by which a card is known again."""
    medium: Medium
    regions: list[WrittenRegion]
    written_at: str
    seconds: float

    def written(self) -> list[Written]:
        """Return the regions as the writer knows them."""
        return [Written(region.name, region.offset, region.size, region.sha256) for region in self.regions]


def load_receipt(path: Path) -> Receipt:
    """Read a receipt.

    Raises:
        ConfigError: it is none.
    """
    try:
        return Receipt.model_validate_json(path.read_text())
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is no receipt: {error}", hint="`lineside-flash write --receipt FILE` makes one"
        ) from error
