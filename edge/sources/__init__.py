"""Sources: where pictures and sounds come from, each behind the same `Source`.

Rules:
- A source's libraries are imported when a station asks for it, never before.
- Settings are a pydantic model in `settings.py`; a wrong one is a `ConfigError` that names the field.
- To add one: a file with an `open_source` like those here, its settings, and a line in `SOURCES`.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edge.lazy import find

if TYPE_CHECKING:
    from edge.clock import Clock
    from edge.sources.interface import Source

SOURCES = {
    "folder": "edge.sources.folder:open_source",
    "audio_file": "edge.sources.audio_file:open_source",
    "camera": "edge.sources.camera:open_source",
    "http": "edge.sources.http:open_source",
    "replay": "edge.sources.replay:open_source",
    "microphone": "edge.sources.microphone:open_source",
}
EXTRAS = {"http": "server", "microphone": "microphone"}

Seen = Callable[[str], bool]
"""Says whether a window with this key has been decided already."""


def open_source(kind: str, settings: Mapping[str, Any], *, seen: Seen, clock: "Clock") -> "Source":
    """Open a source.

    Args:
        kind: a key of `SOURCES`.
        settings: the source's own settings, as the config has them.
        seen: asked once per input; an input that was decided is not read again.
        clock: time for rates and scans.

    Raises:
        ConfigError: the kind or a setting is unknown or wrong, or a library is not installed.
        SourceError: the source is not there; trying again later may help.
    """
    opener = find(SOURCES, kind, what="source", extras=EXTRAS)
    source: Source = opener(settings, seen=seen, clock=clock)
    return source
