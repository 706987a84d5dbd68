"""Downloads a bundle over any line, bit by bit if need be, and gives it out only if it is the signed one.

Rules:
- Signed metadata is asked first: a bundle that it does not know, or knows with another digest, is not fetched.
- Downloads go on where they ended, across cuts, kills and restarts: the address is the content's digest, so what
  was fetched before is a part of the same file, and the digest over everything is checked at the end.
- A part of an earlier attempt is not trusted: after a power cut its size may be right and its bytes not. If the whole
  is wrong with it, everything is fetched once more before the bundle is refused.
- Nothing larger than signed is written; a line that only drips is given up; there is a deadline.
- Where the device has an older bundle of the model, a delta from it is tried first (`bydelta`); what it gives is held
  against the same signed digest and size, and whatever is wrong with it ends in the download of the whole.
- A file of the wanted name is complete and proven, always: it gets its name last, after fsync.
"""

import asyncio
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import urllib3

from edge.bydelta import Way, make_by_delta
from edge.errors import LinkError, StoreError, UpdateError
from edge.files import sync_directory
from edge.http import connection_pool, for_people
from edge.trust import TargetInfo, trusted_target
from edge.wire.base import BundleRef
from edge.wire.delta import WORTH

CHUNK_BYTES = 64 * 1024
MARGIN_BYTES = 16 * 1024 * 1024
"""Left free on the disk besides the bundle: decisions must find room while it comes."""
SILENCE_S = 10.0
"""Longest silence of the server; also how late a stop is noticed."""
STALE_PART_S = 7 * 24 * 3600
"""An unfinished download that nobody went on with for a week is removed."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """When a download is given up."""

    deadline_s: float = 3600.0
    """For the whole call; what has come is kept for the next one."""
    min_bytes_per_s: float = 1024.0
    """Over `slow_s`; a quarter of the slowest mobile line."""
    slow_s: float = 30.0
    attempts: int = 5
    """Connections in a row that bring nothing or only drip."""
    pause_s: float = 1.0
    """Between connections, times the number of fruitless ones."""
    margin_bytes: int = MARGIN_BYTES


async def fetch_bundle(
    ref: BundleRef,
    destination: Path,
    *,
    base_url: str,
    root: Path | None,
    trust_dir: Path,
    base: Path | None = None,
    ca: Path | None = None,
    limits: FetchLimits | None = None,
) -> Way:
    """Get a bundle from a control plane to `destination`, in a worker thread that ends when this is cancelled.

    Args:
        ref: the bundle that is wanted.
        destination: where it shall be.
        base_url: the control plane; metadata and bundles are below `/tuf/`.
        root: the root of trust that the device was flashed with.
        trust_dir: where the device keeps trusted metadata.
        base: another bundle of the model that is here, named by its digest; a delta from it is less to download.
        ca: what to verify the control plane by (PEM), instead of what the system trusts.
        limits: when to give up.

    Raises:
        UpdateError, LinkError, StoreError, ConfigError: as `download_bundle` and `trusted_target`.
    """
    cloud = base_url.rstrip("/")
    stop = threading.Event()

    def trust(target_path: str) -> TargetInfo:
        return trusted_target(
            target_path, metadata_dir=trust_dir, metadata_url=f"{cloud}/tuf/metadata", root=root, ca=ca
        )

    def work() -> Way:
        return download_bundle(
            ref,
            destination,
            targets_url=f"{cloud}/tuf/targets",
            trust=trust,
            base=base,
            ca=ca,
            limits=limits,
            stop=stop,
        )

    try:
        return await asyncio.to_thread(work)
    except asyncio.CancelledError:
        stop.set()
        raise


def download_bundle(
    ref: BundleRef,
    destination: Path,
    *,
    targets_url: str,
    trust: Callable[[str], TargetInfo],
    base: Path | None = None,
    ca: Path | None = None,
    limits: FetchLimits | None = None,
    stop: threading.Event | None = None,
) -> Way:
    """Get a bundle to `destination`, proven; return how it came.

    Args:
        ref: the bundle that is wanted.
        destination: where it shall be; a part of it is kept beside.
        targets_url: where bundles are served, for example `http://cloud/tuf/targets`; deltas lie beside, in `deltas`.
        trust: what the signed metadata says of a target path (`edge.trust.trusted_target`).
        base: as in `fetch_bundle`.
        ca: what to verify the server by (PEM), instead of what the system trusts.
        limits: when to give up.
        stop: set to end early.

    Raises:
        UpdateError: it is not the signed bundle.
        LinkError: it could not be fetched (completely); another call goes on with it.
        StoreError: the disk has no room or fails.
    """
    limits, stop = limits or FetchLimits(), stop or threading.Event()
    agree(ref, trust(ref.target_path))
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        if destination.exists() and _digest(destination) == ref.digest:
            return Way(0)
        part = destination.with_name(f".{ref.digest}.part")
        _remove_stale(destination.parent, except_for=part)
        way = Way(0)
        url = targets_url.rstrip("/")
        if base is not None and not _has_much(part, ref):
            way = _by_delta(ref, base, part, f"{url.removesuffix('/targets')}/deltas", ca, limits, stop)
        if not way.received_bytes:
            pool = connection_pool(read_s=SILENCE_S, ca=ca)
            _whole(
                part, Download(ref, _FilePart(part, ref), f"{url}/{ref.digest}.{ref.target_path}", pool, limits, stop)
            )
        part.replace(destination)
        sync_directory(destination.parent)
    except OSError as error:
        raise StoreError(
            f"cannot keep {destination.name}: {error.strerror or error}", hint=f"look at {destination.parent}"
        ) from error
    return way


def agree(ref: BundleRef, signed: TargetInfo) -> None:
    """Refuse what is asked for but was not signed as it is asked for.

    Raises:
        UpdateError: digest or size differ.
    """
    if (signed.digest, signed.size_bytes) != (ref.digest, ref.size_bytes):
        raise UpdateError(
            f"{ref.target_path}: asked for {ref.digest[:12]}… ({ref.size_bytes} bytes), "
            f"signed is {signed.digest[:12]}… ({signed.size_bytes} bytes)",
            hint="the control plane asks for something that was not released",
        )


class Appended(Protocol):
    """What a download is written to: a file opened to append, or what looks like one."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: Any) -> None: ...

    def tell(self) -> int: ...

    def seek(self, place: int, /) -> int: ...

    def truncate(self, size: int, /) -> int: ...

    def write(self, data: bytes, /) -> int: ...

    def flush(self) -> None: ...

    def fileno(self) -> int: ...


class Part(Protocol):
    """Where a download comes to lie, with what an earlier attempt has left of it."""

    def open(self) -> Appended:
        """Open it behind what is there."""
        ...

    def check_space(self, more_bytes: int, limits: FetchLimits, /) -> None:
        """Make sure that so much more finds room.

        Raises:
            StoreError: it does not.
        """
        ...


class Download:
    """One bundle's way into its part file."""

    def __init__(
        self,
        ref: BundleRef,
        part: Part,
        url: str,
        pool: urllib3.PoolManager,
        limits: FetchLimits,
        stop: threading.Event,
    ) -> None:
        self.ref = ref
        self.part = part
        self._url = url
        self._limits = limits
        self._stop = stop
        self._give_up_s = time.monotonic() + limits.deadline_s
        self._pool = pool
        self._too_slow = False

    def run(self) -> None:
        """Fetch until the part has the signed size."""
        fruitless = 0
        with self.part.open() as file:
            if file.tell() > self.ref.size_bytes:
                _empty(file)
            while (have := file.tell()) < self.ref.size_bytes:
                self.part.check_space(self.ref.size_bytes - have, self._limits)
                problem = self._one_connection(file)
                fruitless = fruitless + 1 if self._too_slow or file.tell() <= have else 0
                if problem and (fruitless >= self._limits.attempts or self._is_over()):
                    raise LinkError(
                        f"{self._url}: {problem} ({file.tell()} of {self.ref.size_bytes} bytes are here)",
                        hint="the download goes on at the next attempt",
                    )
                if problem:
                    self._stop.wait(self._limits.pause_s * (1 + fruitless))
            file.flush()
            os.fsync(file.fileno())

    def _is_over(self) -> bool:
        return self._stop.is_set() or time.monotonic() > self._give_up_s

    def _one_connection(self, file: Appended) -> str:
        """Append what one request gives; return what ended it early, or nothing."""
        self._too_slow = False
        headers = {"Accept-Encoding": "identity"}
        if file.tell():
            headers["Range"] = f"bytes={file.tell()}-"
        try:
            with self._pool.request("GET", self._url, headers=headers, preload_content=False) as answer:
                if problem := self._begin(answer, file):
                    return problem
                return self._receive(answer, file)
        except urllib3.exceptions.LocationValueError as error:
            raise LinkError(f"{self._url} is not an address: {error}", retry=False) from error
        except urllib3.exceptions.HTTPError as error:
            return for_people(error)

    def _begin(self, answer: urllib3.BaseHTTPResponse, file: Appended) -> str:
        """Bring the part to where the answer begins; return why it cannot be used, or nothing."""
        self._agree_on_size(answer)
        if answer.status == 200:
            _empty(file)
        elif answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {file.tell()}-"):
            return ""
        elif answer.status in (206, 416):
            got = answer.headers.get("Content-Range", "no range")
            _empty(file)
            return f"the server answered {answer.status} with {got!r}"
        else:
            return f"the server answered {answer.status}"
        return ""

    def _agree_on_size(self, answer: urllib3.BaseHTTPResponse) -> None:
        """Refuse a file that has another size at the server: no number of attempts would complete it."""
        stated = _stated_size(answer)
        if stated is not None and stated != self.ref.size_bytes:
            raise UpdateError(
                f"{self.ref.target_path}: expected {self.ref.size_bytes} bytes, the server has {stated}",
                hint="it was cut short or replaced on the server",
            )

    def _receive(self, answer: urllib3.BaseHTTPResponse, file: Appended) -> str:
        looked_s, looked_at = time.monotonic(), file.tell()
        while chunk := answer.read1(CHUNK_BYTES, decode_content=False):
            if file.tell() + len(chunk) > self.ref.size_bytes:
                raise UpdateError(
                    f"{self.ref.target_path}: expected {self.ref.size_bytes} bytes, got more",
                    hint="something altered it on the way or on the server",
                )
            file.write(chunk)
            if self._is_over():
                return "stopped" if self._stop.is_set() else f"not done within {self._limits.deadline_s:g} s"
            now_s = time.monotonic()
            if now_s - looked_s >= self._limits.slow_s:
                if file.tell() - looked_at < self._limits.min_bytes_per_s * (now_s - looked_s):
                    self._too_slow = True
                    return f"slower than {self._limits.min_bytes_per_s:g} bytes/s"
                looked_s, looked_at = now_s, file.tell()
        return "" if file.tell() == self.ref.size_bytes else "the connection ended early"


# ── private, in call order ──────────────────────────────────────────────────────────────────────────────────────


def _has_much(part: Path, ref: BundleRef) -> bool:
    """Whether an earlier attempt has left so much that going on with it is less than a delta may be."""
    return part.exists() and part.stat().st_size >= (1 - WORTH) * ref.size_bytes


def _by_delta(
    ref: BundleRef,
    base: Path,
    part: Path,
    deltas_url: str,
    ca: Path | None,
    limits: FetchLimits,
    stop: threading.Event,
) -> Way:
    """Make the bundle at `part` by a delta, if there is one; what lay there is kept if there is none."""
    made = part.with_name(f".{ref.digest}.delta.part")
    _check_room(made, ref, ref.size_bytes, limits)
    patience_s = min(limits.deadline_s, limits.slow_s + WORTH * ref.size_bytes / limits.min_bytes_per_s)
    way = make_by_delta(ref, base, made, deltas_url=deltas_url, deadline_s=patience_s, stop=stop, ca=ca)
    if not way.received_bytes:
        return way
    try:
        _prove(ref, made)
    except UpdateError as error:
        made.unlink()
        return Way(0, str(error))
    made.replace(part)
    return way


def _whole(part: Path, download: Download) -> None:
    try:
        _complete(part, download)
    except UpdateError:
        part.unlink(missing_ok=True)
        raise


def _complete(part: Path, download: Download) -> None:
    """Bring a part to the whole bundle, proven; one that an earlier attempt has left is dropped if it is wrong."""
    left_over = part.exists() and part.stat().st_size > 0
    download.run()
    try:
        _prove(download.ref, part)
    except UpdateError:
        if not left_over:
            raise
        part.unlink()
        download.run()
        _prove(download.ref, part)


@dataclass(frozen=True)
class _FilePart:
    """A part in a file of its own."""

    path: Path
    ref: BundleRef

    def open(self) -> Appended:
        return self.path.open("ab")

    def check_space(self, more_bytes: int, limits: FetchLimits) -> None:
        _check_room(self.path, self.ref, more_bytes, limits)


def _check_room(part: Path, ref: BundleRef, more_bytes: int, limits: FetchLimits) -> None:
    needed = more_bytes + limits.margin_bytes
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise StoreError(
            f"no room for {ref.target_path}: expected {needed} free bytes, got {free}",
            hint=f"free space on the disk that holds {part.parent}",
        )


def _stated_size(answer: urllib3.BaseHTTPResponse) -> int | None:
    """Return the size of the whole file by the answer's headers (RFC 9110, 8.6 and 14.4), None if they do not say."""
    if answer.status == 200 and "Content-Encoding" not in answer.headers:
        text = answer.headers.get("Content-Length", "")
    elif answer.status in (206, 416):
        text = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        text = ""
    return int(text) if text.isascii() and text.isdigit() else None


def _empty(file: Appended) -> None:
    file.truncate(0)
    file.seek(0)


def _prove(ref: BundleRef, part: Path) -> None:
    got = _digest(part)
    if got != ref.digest:
        raise UpdateError(
            f"{ref.target_path}: expected SHA-256 {ref.digest}, got {got}",
            hint="something altered it on the way or on the server",
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_stale(folder: Path, *, except_for: Path) -> None:
    for path in folder.glob(".*.part"):
        if path != except_for and time.time() - path.stat().st_mtime > STALE_PART_S:
            path.unlink(missing_ok=True)
