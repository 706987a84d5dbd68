"""Files that are whole or absent: torn, altered, foreign and killed."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge.errors import StoreError
from edge.files import MAX_JSON_BYTES, read_checked_json, write_atomic, write_checked_json


def test_written_file_has_content_and_mode_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_atomic(path, b"secret", mode=0o600)
    assert path.read_bytes() == b"secret"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["key"]


def test_mode_is_as_asked_whatever_the_umask_and_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    path.chmod(0o666)
    (tmp_path / ".file.tmp").write_bytes(b"left by a kill")
    before = os.umask(0o077)
    try:
        write_atomic(path, b"x", mode=0o644)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_folder_missing_is_a_store_error_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        write_atomic(tmp_path / "nowhere" / "file", b"x")


def test_link_in_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"keep")
    (tmp_path / ".file.tmp").symlink_to(victim)
    with pytest.raises(StoreError):
        write_atomic(tmp_path / "file", b"x")
    assert victim.read_bytes() == b"keep"


def test_full_disk_keeps_the_old_content(small_disk: Path) -> None:
    path = small_disk / "state.json"
    write_checked_json(path, {"version": 1})
    (small_disk / "ballast").write_bytes(b"b" * 900_000)
    with pytest.raises(StoreError) as caught:
        write_checked_json(path, {"version": 2, "text": "x" * 400_000})
    assert "free space" in caught.value.hint
    assert read_checked_json(path) == {"version": 1}
    assert {item.name for item in small_disk.iterdir()} == {"state.json", "ballast"}


def test_checked_json_comes_back_as_it_was(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, "ü\u2028"], "a": {"deep": True}}
    write_checked_json(tmp_path / "state.json", value)
    assert read_checked_json(tmp_path / "state.json") == value


def test_no_file_is_none(tmp_path: Path) -> None:
    assert read_checked_json(tmp_path / "state.json") is None


def test_every_torn_length_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_checked_json(path, {"version": 12})
    whole = path.read_bytes()
    for length in range(len(whole) - 1):  # the last byte is only the line's end
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match="is damaged") as caught:
            read_checked_json(path)
        assert not caught.value.retry


def test_flipped_bit_in_any_byte_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_checked_json(path, {"version": 12})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            assert read_checked_json(path) == {"version": 12}
        except StoreError as error:
            assert not error.retry


@pytest.mark.parametrize("content", [b"null", b"[]", b"{}", b'{"value": 1}', b"\xff\xfe", b" " * (MAX_JSON_BYTES + 2)])
def test_foreign_content_is_damage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged"):
        read_checked_json(path)


WRITER = """
import sys
from pathlib import Path
from edge.files import write_checked_json
path, number = Path(sys.argv[1]), int(sys.argv[2])
while True:
    number += 1
    write_checked_json(path, {"number": number, "padding": "x" * 20000})
    print(number, flush=True)
"""


def test_killed_writer_leaves_the_last_acknowledged_state_or_the_next(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    path, told = tmp_path / "state.json", 0
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(told)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        threading.Timer(rng.uniform(0.0, 0.1), child.send_signal, [signal.SIGKILL]).start()
        lines = child.stdout.read().split(b"\n")
        child.wait()
        child.stdout.close()
        told = max([told, *(int(line) for line in lines[:-1])])
        found = read_checked_json(path)
        assert found is not None
        assert found["number"] >= told
        told = found["number"]
        assert json.loads(path.read_bytes())["value"]["padding"] == "x" * 20000
