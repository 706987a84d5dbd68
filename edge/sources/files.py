"""Files as windows: reading, decoding, and the source over a folder that pictures and sounds share.

Rules:
- A file that cannot be judged is still a window, with its bytes and the reason, so that it is recorded.
- A file that vanishes between listing and reading was never an input; one that changes meanwhile comes later.
"""

import fnmatch
import os
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from edge.errors import SourceError
from edge.settings import read_settings
from edge.sources.listing import Entry, Listing
from edge.sources.pace import Pace
from edge.sources.settings import FileSettings
from edge.values import Window

if TYPE_CHECKING:
    from edge.clock import Clock
    from edge.sources import Seen

MediaKind = Literal["image", "audio"]

MAX_FILE_BYTES = 256 * 2**20
"""The largest picture and the longest sound that the decoders take are smaller, even uncompressed."""

_MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".bmp": "image/bmp",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".wav": "audio/wav",
}
_DECODERS: dict[MediaKind, str] = {"image": "edge.imaging", "audio": "edge.sound"}
_UNKNOWN_MEDIA_TYPE = "application/octet-stream"


class FileSource:
    """Gives one window per file. Used by one thread."""

    def __init__(self, kind: str, media: MediaKind, settings: FileSettings, seen: "Seen", clock: "Clock") -> None:
        self.kind = kind
        import_module(_DECODERS[media])  # now, so that the first window does not wait for it
        self._settings, self._seen, self._clock = settings, seen, clock
        accepts = _matcher(settings.pattern, media)
        self._listing: Listing | None = Listing(settings.path, accepts, clock, loop=settings.loop, watch=settings.watch)
        self._pace = Pace(settings.rate_per_s, clock)

    def read(self, wait_s: float) -> Window | None:
        if self._listing is None:
            raise SourceError(f"{self._settings.path}: the source is closed", retry=False)
        until_s = self._clock.monotonic_s() + wait_s
        if not self._pace.wait(until_s):
            return None
        while True:
            window = self._next(self._listing)
            if window is not None:
                self._pace.took()
                return window
            left_s = until_s - self._clock.monotonic_s()
            if left_s <= 0 or self._listing.exhausted:
                return None
            if not self._listing.ready:
                time.sleep(min(left_s, self._listing.seconds_to_scan() + 0.001))

    @property
    def exhausted(self) -> bool:
        return self._listing is None or self._listing.exhausted

    def close(self) -> None:
        self._listing = None

    def _next(self, listing: Listing) -> Window | None:
        entry = listing.next()
        if entry is None:
            return None
        key = f"{listing.round}/{entry.key}" if self._settings.loop else entry.key
        if not self._settings.loop and self._seen(key):
            return None
        try:
            raw, changed = _read(entry)
        except FileNotFoundError:
            return None
        except OSError as error:
            return _unusable(entry.name, self.kind, key, f"cannot be read: {error.strerror or error}")
        if changed:
            listing.again(entry)
            return None
        if raw is None:
            problem = f"expected a file of at most {MAX_FILE_BYTES:,} bytes, got {entry.stamp[0]:,}"
            return _unusable(entry.name, self.kind, key, problem)
        return decode_window(raw, name=entry.name, source=self.kind, media_type=_media_type(entry.name), key=key)


def open_files(kind: str, media: MediaKind, settings: Mapping[str, Any], *, seen: "Seen", clock: "Clock") -> FileSource:
    """Open a source over files.

    Raises:
        ConfigError: a setting is unknown or wrong.
        SourceError: there is nothing at the path.
    """
    return FileSource(kind, media, read_settings(FileSettings, settings, where=f"source {kind}"), seen, clock)


def media_kind(path: Path) -> MediaKind | None:
    """Return what a file holds by its name, or None if it is neither picture nor sound."""
    media_type = _media_type(path.name)
    if media_type.startswith("image/"):
        return "image"
    return "audio" if media_type.startswith("audio/") else None


def read_window(path: Path, *, source: str) -> Window:
    """Return one file as a window; whatever is wrong with it stands in `problem`, nothing is raised."""
    name = os.fsencode(path).decode("utf-8", "backslashreplace")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return _unusable(name, source, name, f"cannot be read: {error.strerror or error}")
    if len(raw) > MAX_FILE_BYTES:
        return _unusable(name, source, name, f"expected a file of at most {MAX_FILE_BYTES:,} bytes")
    return decode_window(raw, name=name, source=source, media_type=_media_type(name))


def decode_window(raw: bytes, *, name: str, source: str, media_type: str, key: str | None = None) -> Window:
    """Return encoded bytes as a window, decoded, or with the reason why they cannot be in `problem`.

    Args:
        raw: a whole file.
        name: the source's name for it.
        source: kind of source.
        media_type: what it is thought to be; what the bytes say decides.
        key: identity at the source, `name` without one.
    """
    started = time.perf_counter()
    data: NDArray[Any] | None = None
    rate_hz, problem = None, None
    try:
        if _is_sound(raw, media_type):
            from edge.sound import MEDIA_TYPE, decode_wav

            data, rate_hz = decode_wav(raw)
            media_type = MEDIA_TYPE
        else:
            from edge.imaging import decode

            data, media_type = decode(raw)
    except SourceError as error:
        problem = str(error)
    return Window(
        source=source,
        name=name,
        key=name if key is None else key,
        media_type=media_type,
        data=data,
        raw=raw,
        sample_rate_hz=rate_hz,
        problem=problem,
        decode_ms=(time.perf_counter() - started) * 1000,
    )


def _is_sound(raw: bytes, media_type: str) -> bool:
    if raw[:4] == b"RIFF" and raw[8:12] in (b"WAVE", b"WEBP"):
        return raw[8:12] == b"WAVE"
    return media_type.startswith("audio/")


def _read(entry: Entry) -> tuple[bytes | None, bool]:
    """Return a file's bytes (None if there are too many) and whether it changed since it was listed."""
    with entry.path.open("rb") as file:
        if entry.stamp[0] > MAX_FILE_BYTES:
            return None, False
        raw = file.read(entry.stamp[0] + 1)
        status = os.fstat(file.fileno())
    return raw, (status.st_size, status.st_mtime_ns) != entry.stamp or len(raw) != entry.stamp[0]


def _unusable(name: str, source: str, key: str, problem: str) -> Window:
    return Window(source=source, name=name, key=key, media_type=_media_type(name), data=None, problem=problem)


def _media_type(name: str) -> str:
    return _MEDIA_TYPES.get(os.path.splitext(name)[1].lower(), _UNKNOWN_MEDIA_TYPE)  # noqa: PTH122 (a name, no path)


def _matcher(pattern: str | None, media: MediaKind) -> Callable[[str], bool]:
    if pattern is None:
        return lambda name: _media_type(name).startswith(f"{media}/")
    wanted = pattern.lower()
    return lambda name: fnmatch.fnmatchcase(name.lower(), wanted)
