"""A delta: how a bundle is made out of another one, with few bytes; pure.

A bundle's archive is compressed member by member, so two archives differ nearly everywhere though their members do
not. A delta therefore works on what the archives hold: both are cut into pieces (headers, members), members are
unpacked, and the new content is written as differences from the old (control, diff and extra of bsdiff: C. Percival,
"Naive differences of executable code", 2003). The pieces are then packed again as they were, byte for byte.

A delta is `MAGIC`, three lengths (u32, little-endian), and as many XZ streams: control (the header as JSON after its
own length, then records of three i64: bytes to add, bytes to copy, how far to move in the old content), diff, extra.

Rules:
- Whoever applies a delta compares the digest of the result with the signed one: nothing in a delta is believed.
- Memory and output are bounded before they are taken, whatever a delta says: `MAX_UNPACKED_BYTES` for either side,
  `LZMA_MEMORY_BYTES` for each stream, the signed size for what is written.
- Only the standard library is needed.
"""

import bz2
import io
import itertools
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from pydantic import Field, ValidationError

from edge.wire.base import Digest, WireModel

MAGIC = b"LSDELTA1"
MAX_UNPACKED_BYTES = 16 * 2**20
"""Of either archive: three times the largest reference model; beyond it the whole is downloaded."""
MAX_PIECES = 256
LZMA_MEMORY_BYTES = 8 * 2**20
LZMA_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 4 * 2**20}]
"""How streams are written: a dictionary of 4 MiB keeps reading them within the bound."""
WORTH = 0.5
"""A delta that is more than this share of the whole is not worth a device's work."""
_LENGTHS, _RECORD, _SIZE = struct.Struct("<3I"), struct.Struct("<3q"), struct.Struct("<I")
_CHUNK_BYTES = 2**16
_LOCAL_HEADER = struct.Struct("<26xHH")
_BZIP2_LEVEL = 9
_DAMAGED = (zipfile.BadZipFile, lzma.LZMAError, zlib.error, struct.error, OSError, EOFError, ValueError, RuntimeError)


class DeltaError(ValueError):
    """A delta cannot be used: it is damaged, made to harm, or for other archives."""


class PieceSpec(WireModel):
    """One piece of the new archive."""

    how: Literal["raw", "bzip2", "same"]
    """As it is; unpacked here and compressed in the archive; or as a piece of the old archive."""
    size_bytes: int = Field(ge=0, le=MAX_UNPACKED_BYTES)
    of: int = Field(default=0, ge=0, lt=MAX_PIECES)
    """`same`: the number of the old piece."""


class DeltaHeader(WireModel):
    """What a delta makes out of what."""

    old: Digest
    new: Digest
    size_bytes: int = Field(ge=0)
    """Of the new archive."""
    pieces: list[PieceSpec] = Field(max_length=MAX_PIECES)
    source: list[int] = Field(max_length=MAX_PIECES)
    """Numbers of the old pieces that the differences are from, in this order."""


@dataclass(frozen=True)
class Piece:
    """A run of an archive's bytes."""

    packed: bytes
    content: bytes
    """Unpacked, where that gives the packed bytes again; else the same."""

    @property
    def how(self) -> Literal["raw", "bzip2"]:
        return "raw" if self.content is self.packed else "bzip2"


def pieces_of(archive: bytes) -> list[Piece]:
    """Cut an archive into members that are compressed by bzip2 and what lies between them.

    Raises:
        DeltaError: it is no archive, has too many pieces, or holds more than `MAX_UNPACKED_BYTES`.
    """
    if len(archive) > MAX_UNPACKED_BYTES:
        raise DeltaError(f"expected at most {MAX_UNPACKED_BYTES} bytes, got {len(archive)}")
    try:
        return list(_cut(archive))
    except DeltaError:
        raise
    except _DAMAGED as error:
        raise DeltaError(f"not an archive: {error}") from error


def packed(content: bytes) -> bytes:
    """Return content as archives hold it where they compress it."""
    return bz2.compress(content, _BZIP2_LEVEL)


def written(header: DeltaHeader, control: list[tuple[int, int, int]], diff: bytes, extra: bytes) -> bytes:
    """Return the bytes of a delta."""
    text = header.model_dump_json().encode()
    records = b"".join(_RECORD.pack(*record) for record in control)
    streams = [_SIZE.pack(len(text)) + text + records, diff, extra]
    parts = [lzma.compress(part, lzma.FORMAT_XZ, lzma.CHECK_NONE, filters=LZMA_FILTERS) for part in streams]
    return b"".join([MAGIC, _LENGTHS.pack(*(len(part) for part in parts)), *parts])


def apply(old: bytes, delta: bytes, write: Callable[[bytes], object], *, digest: str, size_bytes: int) -> None:
    """Make the new archive out of the old one.

    Args:
        old: the old archive.
        delta: as it came.
        write: takes the new archive's bytes, in order.
        digest: SHA-256 that the new archive must have; the signed one.
        size_bytes: its signed size; nothing is written beyond it.

    Raises:
        DeltaError: the delta is not one from `old` to `digest`, is damaged, or says more than it may.
    """
    try:
        _apply(old, delta, _Output(write, digest, size_bytes))
    except DeltaError:
        raise
    except _DAMAGED as error:
        raise DeltaError(f"the delta is damaged: {error}") from error


# ── private, in call order ──────────────────────────────────────────────────────────────────────────────────────


def _cut(archive: bytes) -> Iterator[Piece]:
    done, room = 0, MAX_UNPACKED_BYTES
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        members = sorted(opened.infolist(), key=lambda member: member.header_offset)
    if 2 * len(members) + 1 > MAX_PIECES:
        raise DeltaError(f"expected at most {MAX_PIECES // 2 - 1} members, got {len(members)}")
    for member in members:
        if member.compress_type != zipfile.ZIP_BZIP2:
            continue
        start = member.header_offset + 30 + sum(_LOCAL_HEADER.unpack_from(archive, member.header_offset))
        end = start + member.compress_size
        if not done <= start <= end <= len(archive):
            raise DeltaError("members overlap")
        between, inside = archive[done:start], archive[start:end]
        content = bz2.BZ2Decompressor().decompress(inside, max(0, room - len(between)) + 1)
        room -= len(between) + len(content)
        if room < 0:
            raise DeltaError(f"expected at most {MAX_UNPACKED_BYTES} bytes unpacked, got more")
        yield Piece(between, between)
        yield Piece(inside, content)
        done = end
    rest = archive[done:]
    yield Piece(rest, rest)


def _apply(old: bytes, delta: bytes, out: "_Output") -> None:
    meta, diff, extra = _streams(delta)
    header = _header(meta)
    if (header.new, header.size_bytes) != (out.digest, out.size_bytes):
        raise DeltaError(f"expected a delta to {out.digest[:12]}…, got one to {header.new[:12]}…")
    if (have := sha256(old).hexdigest()) != header.old:
        raise DeltaError(f"expected a delta from {have[:12]}…, got one from {header.old[:12]}…")
    pieces = pieces_of(old)
    if any(not 0 <= number < len(pieces) for number in [*header.source, *(p.of for p in header.pieces)]):
        raise DeltaError("it names pieces that the old archive does not have")
    if len(set(header.source)) != len(header.source):
        raise DeltaError("it names a piece of the old archive twice")
    source = b"".join(pieces[number].content for number in header.source)
    wanted = sum(piece.size_bytes for piece in header.pieces if piece.how != "same")
    if wanted > MAX_UNPACKED_BYTES:
        raise DeltaError(f"expected at most {MAX_UNPACKED_BYTES} bytes unpacked, it says {wanted}")
    content = _Content(_differences(meta, diff, extra, source))
    for piece in header.pieces:
        if piece.how == "same":
            out.put(pieces[piece.of].packed)
            continue
        compress = bz2.BZ2Compressor(_BZIP2_LEVEL) if piece.how == "bzip2" else None
        for chunk in content.take(piece.size_bytes):
            out.put(compress.compress(chunk) if compress else chunk)
        if compress:
            out.put(compress.flush())
    out.close()


def _streams(delta: bytes) -> "list[_Stream]":
    begin = len(MAGIC) + _LENGTHS.size
    if delta[: len(MAGIC)] != MAGIC or len(delta) < begin:
        raise DeltaError(f"expected a delta, got {delta[:8]!r}")
    found = []
    for length in _LENGTHS.unpack_from(delta, len(MAGIC)):
        found.append(_Stream(delta[begin : begin + length]))
        begin += length
    if begin != len(delta):
        raise DeltaError(f"expected {begin} bytes, got {len(delta)}")
    return found


def _header(meta: "_Stream") -> DeltaHeader:
    (length,) = _SIZE.unpack(meta.read(_SIZE.size))
    if length > _CHUNK_BYTES:
        raise DeltaError(f"header: expected at most {_CHUNK_BYTES} bytes, got {length}")
    try:
        return DeltaHeader.model_validate_json(meta.read(length))
    except ValidationError as error:
        raise DeltaError(f"header: {error.errors()[0]['msg']}") from error


def _differences(meta: "_Stream", diff: "_Stream", extra: "_Stream", source: bytes) -> Iterator[bytes]:
    """Give the new content in chunks."""
    at = 0
    for number in itertools.count():
        add, copy, move = _RECORD.unpack(meta.read(_RECORD.size))
        if add < 0 or copy < 0 or not 0 <= at <= at + add <= len(source):
            raise DeltaError("it reaches beyond the old content")
        if add + copy == 0 and number:  # else a few bytes of them would keep a device busy for ever
            raise DeltaError("it goes on without adding anything")
        for start in range(at, at + add, _CHUNK_BYTES):
            before = source[start : min(start + _CHUNK_BYTES, at + add)]
            yield _added(before, diff.read(len(before)))
        for left in range(copy, 0, -_CHUNK_BYTES):
            yield extra.read(min(left, _CHUNK_BYTES))
        at += add + move


def _added(first: bytes, second: bytes) -> bytes:
    """Return the sums of bytes modulo 256: carries are kept from the next byte by adding the highest bits apart."""
    size = len(first)
    a, b, low = (int.from_bytes(part, "little") for part in (first, second, b"\x7f" * size))
    return (((a & low) + (b & low)) ^ ((a ^ b) & ~low)).to_bytes(size, "little")


class _Stream:
    """One XZ stream, read as far as it is asked for."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY_BYTES)

    def read(self, count: int) -> bytes:
        """Return exactly so many bytes."""
        found = b""
        while len(found) < count and not self._decompressor.eof:
            got = self._decompressor.decompress(self._data, count - len(found))
            if not got and not self._data:
                break
            self._data = b""
            found += got
        if len(found) != count:
            raise DeltaError("it ends early")
        return found


class _Content:
    """Chunks of any size, taken by number of bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def take(self, count: int) -> Iterator[bytes]:
        """Give exactly so many bytes."""
        while count:
            self._rest = self._rest or next(self._chunks)
            chunk, self._rest = self._rest[:count], self._rest[count:]
            count -= len(chunk)
            yield chunk


class _Output:
    """The new archive on its way out, counted and hashed."""

    def __init__(self, write: Callable[[bytes], object], digest: str, size_bytes: int) -> None:
        self._write = write
        self._hash = sha256()
        self._left = size_bytes
        self.digest = digest
        self.size_bytes = size_bytes

    def put(self, data: bytes) -> None:
        """Write bytes, if there is room for them under the signed size."""
        self._left -= len(data)
        if self._left < 0:
            raise DeltaError(f"it makes more than the {self.size_bytes} bytes that are signed")
        self._hash.update(data)
        self._write(data)

    def close(self) -> None:
        """Compare what was written with what was signed."""
        if self._left or self._hash.hexdigest() != self.digest:
            raise DeltaError(f"it makes {self._hash.hexdigest()[:12]}…, signed is {self.digest[:12]}…")
