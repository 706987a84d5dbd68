"""A folder of pictures."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge.sources.files import FileSource, open_files

if TYPE_CHECKING:
    from edge.clock import Clock
    from edge.sources import Seen


def open_source(settings: Mapping[str, Any], *, seen: "Seen", clock: "Clock") -> FileSource:
    """Open the source; its settings are `FileSettings`.

    Raises:
        ConfigError: a setting is unknown or wrong.
        SourceError: there is nothing at the path.
    """
    return open_files("folder", "image", settings, seen=seen, clock=clock)
