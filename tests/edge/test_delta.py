"""Deltas: what a good one gives on real bundles, and that a wrong or hostile one gives nothing and takes little."""

import io
import lzma
import random
import struct
import threading
import tracemalloc
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from cloud.deltas import make
from edge.bydelta import make_by_delta
from edge.fetch import FetchLimits, download_bundle
from edge.trust import TargetInfo
from edge.wire.base import BundleRef
from edge.wire.delta import MAX_UNPACKED_BYTES, DeltaError, DeltaHeader, PieceSpec, _added, apply, pieces_of, written
from tests.webserver import WebServer

MODELS = Path(__file__).parents[2] / "models" / "phone_glass"
OLD, NEW = ((MODELS / f"phone_glass-{version}.lsb").read_bytes() for version in ("1.0.0", "1.1.0"))
REF = BundleRef(name="phone_glass", version="1.1.0", digest=sha256(NEW).hexdigest(), size_bytes=len(NEW))
OLD_DIGEST = sha256(OLD).hexdigest()
WHOLE, BY_DELTA = f"/tuf/targets/{REF.digest}.{REF.target_path}", f"/tuf/deltas/{OLD_DIGEST}/{REF.digest}"
QUICK = FetchLimits(deadline_s=20, slow_s=0.3, attempts=3, pause_s=0.01, margin_bytes=0)


@pytest.fixture(scope="module")
def delta() -> bytes:
    """A real delta between two committed bundles."""
    return make(OLD, NEW)


def applied(old: bytes, delta: bytes, new: bytes) -> bytes:
    """Return what a device makes of it."""
    out = io.BytesIO()
    apply(old, delta, out.write, digest=sha256(new).hexdigest(), size_bytes=len(new))
    return out.getvalue()


def test_delta_between_two_committed_bundles_gives_the_new_one_for_a_third_of_its_bytes(delta: bytes) -> None:
    assert applied(OLD, delta, NEW) == NEW
    assert len(delta) < 0.33 * len(NEW)


def test_archives_of_all_kinds_come_out_as_they_were() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(40):
        members = {f"m{number}": _content(rng) for number in range(rng.randrange(1, 6))}
        old = _archive(members, rng)
        changed = {name: _changed(data, rng) for name, data in members.items() if rng.random() < 0.9}
        new = _archive({**changed, "manifest.json": rng.randbytes(50)}, rng)
        delta = make(old, new)
        assert not delta or applied(old, delta, new) == new


def test_sums_of_bytes_are_those_of_arithmetic_modulo_256() -> None:
    first, second = bytes(range(256)) * 256, bytes(value for value in range(256) for _ in range(256))
    assert _added(first, second) == bytes((a + b) % 256 for a, b in zip(first, second, strict=True))


def test_any_damage_is_found_and_nothing_beyond_the_signed_size_is_written(delta: bytes) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(60):
        damaged = bytearray(delta)
        place = rng.randrange(len(damaged)) if rng.random() < 0.7 else rng.randrange(80)
        damaged[place] ^= 1 << rng.randrange(8)
        end = len(damaged) if rng.random() < 0.7 else rng.randrange(len(damaged))
        out = io.BytesIO()
        try:
            apply(OLD, bytes(damaged[:end]), out.write, digest=REF.digest, size_bytes=len(NEW))
            assert out.getvalue() == NEW, "a bit that nobody reads"
        except DeltaError:
            assert out.tell() <= len(NEW)


def test_delta_from_another_bundle_is_refused(delta: bytes) -> None:
    with pytest.raises(DeltaError, match="expected a delta from"):
        applied(NEW, delta, NEW)
    with pytest.raises(DeltaError, match="expected a delta to"):
        applied(OLD, delta, OLD)


def test_delta_that_unpacks_to_more_than_is_signed_takes_little_memory_and_ends() -> None:
    pieces = [PieceSpec(how="raw", size_bytes=MAX_UNPACKED_BYTES)]
    bomb = written(_header(pieces), [(0, MAX_UNPACKED_BYTES, 0)], b"", bytes(MAX_UNPACKED_BYTES))
    assert len(bomb) < 5000
    tracemalloc.start()
    with pytest.raises(DeltaError, match="more than the"):
        applied(OLD, bomb, NEW)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 2**20, "old bundle unpacked, one dictionary, one chunk; not what it says it is"


@pytest.mark.parametrize(
    ("pieces", "source", "control", "reason"),
    [
        ([PieceSpec(how="raw", size_bytes=MAX_UNPACKED_BYTES)] * 2, [], [(0, 1, 0)], "bytes unpacked"),
        ([PieceSpec(how="same", size_bytes=1, of=200)], [], [], "does not have"),
        ([PieceSpec(how="raw", size_bytes=1)], [-1], [(0, 1, 0)], "does not have"),
        ([PieceSpec(how="raw", size_bytes=1)], [1] * 200, [(0, 1, 0)], "twice"),
        ([PieceSpec(how="raw", size_bytes=1)], [0], [(2**40, 0, 0)], "beyond the old"),
        ([PieceSpec(how="raw", size_bytes=1)], [0], [(-1, 0, 0)], "beyond the old"),
        ([PieceSpec(how="raw", size_bytes=9)], [0], [(1, 0, -5), (1, 0, 0)], "beyond the old"),
        ([PieceSpec(how="raw", size_bytes=1)], [], [(0, 0, 0)] * 100_000, "without adding"),
        ([PieceSpec(how="raw", size_bytes=9)], [], [(0, 9, 0)], "ends early"),
        ([PieceSpec(how="raw", size_bytes=3)], [], [(0, 3, 0)], "signed is"),
        ([PieceSpec(how="same", size_bytes=0, of=1)] * 200, [], [], "more than the"),
    ],
)
def test_delta_that_says_what_cannot_be_is_refused(
    pieces: list[PieceSpec], source: list[int], control: list[tuple[int, int, int]], reason: str
) -> None:
    hostile = written(_header(pieces, source), control, b"abc", b"abc")
    with pytest.raises(DeltaError, match=reason):
        applied(OLD, hostile, NEW)


def test_stream_that_asks_for_a_large_dictionary_is_refused(delta: bytes) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 64 * 2**20}]
    greedy = lzma.compress(b"x" * 100, lzma.FORMAT_XZ, filters=filters)
    with pytest.raises(DeltaError, match="damaged"):
        applied(OLD, delta[:8] + struct.pack("<3I", len(greedy), 0, 0) + greedy, NEW)


def test_archive_that_unpacks_to_too_much_makes_no_pieces() -> None:
    with pytest.raises(DeltaError, match="unpacked"):
        pieces_of(_archive({"a": bytes(MAX_UNPACKED_BYTES), "b": bytes(1000)}, random.Random(1), compressed=1.0))
    assert make(b"no archive", NEW) == b""


# ── over a line ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def server(delta: bytes) -> Iterator[WebServer]:
    """A control plane that has the bundle and a delta to it."""
    with WebServer() as made:
        made.files |= {WHOLE: NEW, BY_DELTA: delta}
        yield made


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The bundle that the device has."""
    path = tmp_path / "bundles" / f"{OLD_DIGEST}.lsb"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


def download(server: WebServer, base: Path) -> tuple[bytes, str]:
    """Fetch the new bundle; return its bytes and what was wrong with the delta."""
    destination = base.with_name(f"{REF.digest}.lsb")
    signed = TargetInfo(digest=REF.digest, size_bytes=REF.size_bytes)
    url = f"{server.url}/tuf/targets"
    way = download_bundle(REF, destination, targets_url=url, trust=lambda _: signed, base=base, limits=QUICK)
    assert not [*base.parent.glob(".*.part")]
    return destination.read_bytes(), way.problem


def asked(server: WebServer) -> list[str]:
    """Return the paths that were asked for, each once."""
    return list(dict.fromkeys(request.path for request in server.requests))


def test_device_that_has_the_old_bundle_downloads_the_delta_only(server: WebServer, base: Path, delta: bytes) -> None:
    assert download(server, base) == (NEW, "")
    assert asked(server) == [BY_DELTA]
    assert server.body_bytes == len(delta)


def test_delta_goes_on_where_the_line_was_cut(server: WebServer, base: Path, delta: bytes) -> None:
    server.behaviour.cut_after_bytes = 10_000
    assert download(server, base) == (NEW, "")
    assert server.body_bytes == len(delta)


@pytest.mark.parametrize("damage", ["altered", "cut", "other", "page", "empty", "large"])
def test_wrong_delta_costs_an_attempt_is_told_and_the_whole_comes(
    server: WebServer, base: Path, delta: bytes, damage: str
) -> None:
    server.files[BY_DELTA] = {
        "altered": delta[:9000] + bytes([delta[9000] ^ 1]) + delta[9001:],
        "cut": delta[:-100],
        "other": make(NEW, OLD),
        "page": b"<html>welcome to the hotel's network</html>",
        "empty": b"",
        "large": delta + bytes(len(NEW)),
    }[damage]
    data, problem = download(server, base)
    assert data == NEW
    assert problem.startswith(f"the delta from {OLD_DIGEST[:12]}")
    assert asked(server) == [BY_DELTA, WHOLE]


def test_control_plane_without_deltas_is_no_fault(server: WebServer, base: Path) -> None:
    del server.files[BY_DELTA]
    assert download(server, base) == (NEW, "")
    assert asked(server) == [BY_DELTA, WHOLE]


def test_control_plane_that_is_busy_is_no_fault(server: WebServer, base: Path) -> None:
    server.behaviour.status = [503]
    assert download(server, base) == (NEW, "")
    assert asked(server) == [BY_DELTA, WHOLE]


def test_base_that_was_damaged_on_disk_ends_in_the_whole(server: WebServer, base: Path) -> None:
    base.write_bytes(OLD[:5000] + b"!" + OLD[5001:])
    data, problem = download(server, base)
    assert data == NEW
    assert "expected a delta from" in problem


def test_download_that_is_mostly_here_is_gone_on_with(server: WebServer, base: Path) -> None:
    base.with_name(f".{REF.digest}.part").write_bytes(NEW[: len(NEW) * 2 // 3])
    assert download(server, base) == (NEW, "")
    assert asked(server) == [WHOLE]


def test_nobody_there_gives_no_delta_and_no_error(server: WebServer, base: Path) -> None:
    way = make_by_delta(
        REF, base, base.with_name("part"), deltas_url="http://127.0.0.1:9/tuf/deltas", deadline_s=5,
        stop=threading.Event(),
    )  # fmt: skip
    assert (way.received_bytes, way.problem) == (0, "")


# ── private ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _header(pieces: list[PieceSpec], source: list[int] | None = None) -> DeltaHeader:
    return DeltaHeader(old=OLD_DIGEST, new=REF.digest, size_bytes=len(NEW), pieces=pieces, source=source or [])


def _content(rng: random.Random) -> bytes:
    return rng.choice([rng.randbytes(rng.randrange(3000)), bytes(rng.randrange(40_000)), b"abc" * rng.randrange(9000)])


def _changed(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(5)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed) + rng.randbytes(rng.choice([0, 0, 7]))


def _archive(members: dict[str, bytes], rng: random.Random, *, compressed: float = 0.5) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
            if rng.random() < compressed:
                info.compress_type = zipfile.ZIP_BZIP2
            target.writestr(info, data)
    return stream.getvalue()
