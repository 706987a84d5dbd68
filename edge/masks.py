"""Says which parts of a station's pictures nobody may see: settings only, `edge.sources.masked` applies them.

Rules:
- Places are shares of the picture as it came, from its top left, masks as well as the region that is left.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from edge.settings import Settings


class Region(Settings):
    """A rectangle in shares of the picture's width and height, from the top left."""

    x: float = Field(ge=0, le=1)
    y: float = Field(ge=0, le=1)
    width: float = Field(gt=0, le=1)
    height: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if self.x + self.width > 1.000001 or self.y + self.height > 1.000001:
            raise ValueError("it reaches beyond the picture: x + width and y + height must be at most 1")
        return self


class Mask(Region):
    """A region that is made unreadable."""

    how: Literal["black", "blur"] = "black"
