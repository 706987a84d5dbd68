"""Makes a bundle out of one that the device has and a delta from the control plane, where that is less to download.

Rules:
- What is made counts only with the signed digest and size, as a download does; a delta that is wrong or made to harm
  costs one attempt, is told, and the whole is downloaded.
- No delta is the usual case: a control plane that has none, is older, or is busy, is no fault.
- A delta is at most half of the bundle, held in memory, and goes on where the line was cut.
"""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import urllib3

from edge.errors import UpdateError
from edge.http import connection_pool
from edge.wire.base import BundleRef
from edge.wire.delta import MAX_UNPACKED_BYTES, WORTH, DeltaError, apply

SILENCE_S = 10.0
CHUNK_BYTES = 64 * 1024
CONNECTIONS = 5
"""In a row that bring nothing: then the whole is downloaded, which has its own patience."""
PAUSE_S = 0.2
NONE = (204, 404, 503)
"""The control plane has no delta, is too old to know of them, or is still making it."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a bundle came."""

    received_bytes: int
    """Of the delta; 0 if none was used."""
    problem: str = ""
    """Why a delta that came was not used; empty if it was, or if there was none."""


def make_by_delta(
    ref: BundleRef,
    base: Path,
    part: Path,
    *,
    deltas_url: str,
    deadline_s: float,
    stop: threading.Event,
    ca: Path | None = None,
) -> Way:
    """Make a bundle at `part`, flushed to disk, if there is a delta from `base`; nothing is there otherwise.

    Args:
        ref: the signed bundle.
        base: file of a bundle on this device, named `{digest}.lsb`.
        part: where the new bundle is put together.
        deltas_url: where deltas are served, for example `http://cloud/tuf/deltas`.
        deadline_s: for the download.
        stop: set to end early.
        ca: what to verify the server by (PEM), instead of what the system trusts.

    Raises:
        OSError: the disk fails.
    """
    if ref.size_bytes > MAX_UNPACKED_BYTES or base.stat().st_size > MAX_UNPACKED_BYTES:
        return Way(0)
    try:
        url = f"{deltas_url.rstrip('/')}/{base.stem}/{ref.digest}"
        delta = _Delta(url, int(WORTH * ref.size_bytes), ca).fetch(deadline_s, stop)
        if delta is None:
            return Way(0)
        _put_together(ref, base, part, delta)
    except (UpdateError, DeltaError) as error:
        part.unlink(missing_ok=True)
        return Way(0, f"the delta from {base.stem[:12]}… cannot be used: {error}")
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return Way(len(delta))


# ── private, in call order ──────────────────────────────────────────────────────────────────────────────────────


class _Delta:
    """One delta on its way into memory."""

    def __init__(self, url: str, max_bytes: int, ca: Path | None) -> None:
        self._url = url
        self._max_bytes = max_bytes
        self._data = bytearray()
        self._pool = connection_pool(read_s=SILENCE_S, ca=ca)

    def fetch(self, deadline_s: float, stop: threading.Event) -> bytes | None:
        """Return it, or None if there is none or it does not come.

        Raises:
            UpdateError: it is larger than it may be.
        """
        give_up_s, fruitless = time.monotonic() + deadline_s, 0
        while fruitless < CONNECTIONS and time.monotonic() < give_up_s and not stop.is_set():
            have = len(self._data)
            try:
                ended = self._one_connection(give_up_s, stop)
            except urllib3.exceptions.HTTPError:
                ended = None  # if it stays so, the download of the whole says why
            if ended is not None:
                return bytes(self._data) if ended else None
            fruitless = fruitless + 1 if len(self._data) <= have else 0
            stop.wait(PAUSE_S)
        return None

    def _one_connection(self, give_up_s: float, stop: threading.Event) -> bool | None:
        """Append what one request gives; return whether all is here, False if there is no delta, None if it was cut."""
        headers = {"Accept-Encoding": "identity"}
        if self._data:
            headers["Range"] = f"bytes={len(self._data)}-"
        with self._pool.request("GET", self._url, headers=headers, preload_content=False) as answer:
            if answer.status in NONE:
                return False
            if answer.status == 200:
                self._data.clear()
            elif answer.status != 206 or not answer.headers.get("Content-Range", "").startswith(
                f"bytes {len(self._data)}-"
            ):
                return False
            while chunk := answer.read1(CHUNK_BYTES, decode_content=False):
                if len(self._data) + len(chunk) > self._max_bytes:
                    raise UpdateError(f"expected at most {self._max_bytes} bytes, got more")
                self._data += chunk
                if stop.is_set() or time.monotonic() > give_up_s:
                    return False
            whole = _whole(answer)
            return True if whole is None or len(self._data) >= whole else None


def _whole(answer: urllib3.BaseHTTPResponse) -> int | None:
    text = answer.headers.get("Content-Range", "").rpartition("/")[2] or answer.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _put_together(ref: BundleRef, base: Path, part: Path, delta: bytes) -> None:
    with part.open("wb") as file:
        apply(base.read_bytes(), delta, file.write, digest=ref.digest, size_bytes=ref.size_bytes)
        file.flush()
        os.fsync(file.fileno())
