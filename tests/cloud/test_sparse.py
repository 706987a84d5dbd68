"""A sparse file is sent as a gzip file that any reader takes, and its holes cost nothing."""

import gzip
import os
import random
from pathlib import Path

import pytest

from cloud import sparse
from cloud.sparse import gzipped

PIECE = 64 * 1024


@pytest.mark.parametrize(
    "layout",
    [[], [(0, 1)], [(0, PIECE)], [(3 * PIECE, 5 * PIECE)], [(0, PIECE), (40 * PIECE, 41 * PIECE)], [(0, 64 * PIECE)]],
)
@pytest.mark.parametrize("size", [64 * PIECE, 64 * PIECE + 77])
def test_content_is_that_of_the_file(
    tmp_path: Path, layout: list[tuple[int, int]], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse, "HOLE_BYTES", 5 * PIECE)
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(size)
        for start, end in layout:
            file.seek(start)
            file.write(random.Random(start).randbytes(end - start))
    assert gzip.decompress(b"".join(gzipped(path))) == path.read_bytes()


def test_hole_of_gigabytes_is_a_few_megabytes_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(8 * 2**30)
        os.pwrite(file.fileno(), b"x" * PIECE, 2**30)
    assert sum(map(len, gzipped(path))) < 10 * 2**20


def test_empty_file_gives_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    assert b"".join(gzipped(tmp_path / "disk")) == b""
