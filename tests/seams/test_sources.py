"""What sources over files promise besides what every source does (test_every_source.py)."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.clock import SystemClock
from edge.errors import ConfigError, SourceError
from edge.gate import check
from edge.sources import open_source
from edge.sources.files import MAX_FILE_BYTES, decode_window, media_kind, read_window
from edge.sources.interface import Source
from edge.values import Window
from tests.bundles import bundle
from tests.edge.test_imaging import encoded, png_with
from tests.edge.test_sound import pcm
from tests.seams.fakes import ScriptedSource
from tests.waiting import wait_until

NAMES = ["part_1", "part_2", "part_10"]
FILES = ["folder", "audio_file"]
KINDS = [*FILES, "scripted"]


def content(kind: str, number: int) -> bytes:
    """Return a file that a source of this kind reads, another one for each number."""
    if kind == "audio_file":
        return pcm(np.full(400 + number, 0.1))
    return encoded("PNG", np.full((8, 8, 3), 10 + number, np.uint8))


def suffix(kind: str) -> str:
    return ".wav" if kind == "audio_file" else ".png"


def put(path: Path, data: bytes) -> None:
    """Put a finished file there in one step, old enough to be taken at once."""
    hidden = path.with_name(f".{path.name}")
    hidden.write_bytes(data)
    an_hour_ago = time.time() - 3600
    os.utime(hidden, (an_hour_ago, an_hour_ago))
    hidden.rename(path)


def opened(kind: str, folder: Path, *, seen: Callable[[str], bool] = lambda _key: False, **settings: Any) -> Source:
    return open_source(kind, {"path": str(folder), **settings}, seen=seen, clock=SystemClock())


def drained(source: Source, timeout_s: float = 10) -> list[Window]:
    """Return all windows until the source is exhausted."""
    windows: list[Window] = []
    until_s = time.monotonic() + timeout_s
    while not source.exhausted:
        assert time.monotonic() < until_s, "the source is not exhausted in time"
        window = source.read(0.1)
        if window is not None:
            windows.append(window)
    return windows


def first(source: Source, timeout_s: float = 5) -> Window:
    """Return the next window."""
    found: list[Window] = []

    def came() -> bool:
        window = source.read(0.1)
        found.extend([window] if window else [])
        return bool(found)

    wait_until(came, timeout_s, "a window")
    return found[0]


@pytest.fixture(params=KINDS)
def three(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Source]:
    """A source of each kind over three inputs."""
    kind: str = request.param
    for number, name in enumerate(NAMES):
        put(tmp_path / f"{name}{suffix(kind)}", content(kind, number))
    if kind != "scripted":
        return kind, opened(kind, tmp_path, watch=False)
    windows = [read_window(tmp_path / f"{name}.png", source=kind) for name in NAMES]
    return kind, ScriptedSource(windows)


def test_each_input_comes_once_in_natural_order_with_a_key_of_its_own(three: tuple[str, Source]) -> None:
    _, source = three
    windows = drained(source)
    assert [Path(window.name).stem for window in windows] == NAMES
    assert len({window.key for window in windows}) == 3
    assert source.exhausted and source.read(0) is None


def test_window_has_data_raw_bytes_and_media_type(three: tuple[str, Source]) -> None:
    kind, source = three
    for number, window in enumerate(drained(source)):
        assert window.source == source.kind and window.problem is None
        assert window.raw == content(kind, number) and window.data is not None
        if kind == "audio_file":
            assert window.data.shape == (400 + number,) and window.sample_rate_hz == 8000
            assert window.media_type == "audio/wav"
        else:
            assert window.data.shape == (8, 8, 3) and window.data[0, 0, 0] == 10 + number
            assert window.media_type == "image/png"
        assert window.decode_ms > 0


def test_closed_source_refuses_and_closes_again(three: tuple[str, Source]) -> None:
    _, source = three
    source.close()
    source.close()
    assert source.exhausted
    with pytest.raises(SourceError, match="closed"):
        source.read(0)


def test_unknown_source_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="audio_file, camera, folder, http, microphone, replay"):
        open_source("webcam", {}, seen=lambda _key: False, clock=SystemClock())


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "path: Field required"),
        ({"path": "/tmp", "colour": "red"}, "colour"),
        ({"path": "/tmp", "rate_per_s": 0}, "rate_per_s"),
        ({"path": "/tmp", "loop": "sometimes"}, "loop"),
    ],
)
def test_wrong_setting_is_named(kind: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        open_source(kind, settings, seen=lambda _key: False, clock=SystemClock())
    assert "rate_per_s" in caught.value.hint


@pytest.mark.parametrize("kind", FILES)
def test_missing_folder_is_a_source_error_that_may_pass(kind: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be listed") as caught:
        opened(kind, tmp_path / "nowhere")
    assert caught.value.retry


@pytest.mark.parametrize("kind", FILES)
def test_folder_that_goes_away_is_a_source_error(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "camera"
    folder.mkdir()
    source = opened(kind, folder)
    folder.rename(tmp_path / "elsewhere")
    gone: list[SourceError] = []

    def failed() -> bool:
        try:
            source.read(0.05)
        except SourceError as error:
            gone.append(error)
        return bool(gone)

    wait_until(failed, 5, "the source to notice")
    assert gone[0].retry


def test_wait_in_vain_ends_in_time(tmp_path: Path) -> None:
    source = opened("folder", tmp_path)
    started = time.monotonic()
    assert source.read(0.3) is None
    assert 0.25 < time.monotonic() - started < 0.6
    assert not source.exhausted


def test_new_file_is_picked_up(tmp_path: Path) -> None:
    source = opened("folder", tmp_path)
    assert source.read(0.05) is None
    (tmp_path / "new.png").write_bytes(content("folder", 1))
    started = time.monotonic()
    assert first(source).name == "new.png"
    assert time.monotonic() - started < 1.0


def test_file_that_is_still_written_to_is_not_read_half(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    whole = encoded("BMP", noise)
    source = opened("folder", tmp_path)

    def write_slowly() -> None:
        with (tmp_path / "slow.bmp").open("wb", buffering=0) as file:
            for at in range(0, len(whole), 10_000):
                file.write(whole[at : at + 10_000])
                time.sleep(0.05)

    writer = threading.Thread(target=write_slowly)
    writer.start()
    window = first(source)
    writer.join()
    assert window.problem is None and window.raw == whole
    assert source.read(0.5) is None


def test_file_that_changes_between_listing_and_reading_comes_when_it_is_whole(tmp_path: Path) -> None:
    path, whole = tmp_path / "late.png", content("folder", 1)
    put(path, whole[:30])
    asked: list[str] = []

    def finish(key: str) -> bool:  # asked after the listing, before the reading
        if not asked:
            path.write_bytes(whole)
        asked.append(key)
        return False

    source = opened("folder", tmp_path, seen=finish)
    window = first(source)
    assert window.raw == whole and window.problem is None
    assert len(asked) == 2 and asked[0] != asked[1]


def test_file_that_changes_without_watching_still_comes(tmp_path: Path) -> None:
    path, whole = tmp_path / "late.png", content("folder", 1)
    put(path, whole[:30])
    asked: list[str] = []

    def finish(key: str) -> bool:
        if not asked:
            path.write_bytes(whole)
        asked.append(key)
        return False

    assert [window.raw for window in drained(opened("folder", tmp_path, seen=finish, watch=False))] == [whole]


def test_file_that_vanishes_before_it_is_read_was_never_an_input(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        put(tmp_path / f"{name}.png", content("folder", number))

    def remove(key: str) -> bool:
        if key.startswith("part_2"):
            (tmp_path / "part_2.png").unlink()
        return False

    windows = drained(opened("folder", tmp_path, seen=remove, watch=False))
    assert [window.name for window in windows] == ["part_1.png", "part_10.png"]


def test_name_that_cannot_be_read_is_a_window_with_its_problem(tmp_path: Path) -> None:
    path = tmp_path / "odd.png"
    put(path, content("folder", 1))

    def replace(_key: str) -> bool:
        path.unlink()
        path.mkdir()
        return False

    (window,) = drained(opened("folder", tmp_path, seen=replace, watch=False))
    assert window.data is None and window.problem is not None and "cannot be read" in window.problem


def test_file_written_anew_is_a_new_input(tmp_path: Path) -> None:
    path = tmp_path / "latest.png"
    put(path, content("folder", 1))
    source = opened("folder", tmp_path)
    before = first(source)
    path.write_bytes(content("folder", 2))
    after = first(source)
    assert (before.name, after.name) == ("latest.png", "latest.png")
    assert before.key != after.key and after.raw == content("folder", 2)


def test_decided_inputs_do_not_come_again_after_a_restart(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        put(tmp_path / f"{name}.png", content("folder", number))
    decided = {window.key for window in drained(opened("folder", tmp_path, watch=False))[:2]}
    asked: list[str] = []

    def seen(key: str) -> bool:
        asked.append(key)
        return key in decided

    assert [w.name for w in drained(opened("folder", tmp_path, watch=False, seen=seen))] == ["part_10.png"]
    assert len(asked) == 3


def test_many_decided_inputs_are_passed_over_within_the_wait(tmp_path: Path) -> None:
    for number in range(300):
        put(tmp_path / f"{number}.png", b"decided long ago")
    put(tmp_path / "300.png", content("folder", 1))
    source = opened("folder", tmp_path, seen=lambda key: not key.startswith("300."))
    window = source.read(2.0)
    assert window is not None and window.name == "300.png"


def test_order_is_natural_and_the_suffix_counts_last(tmp_path: Path) -> None:
    names = ["a.png", "a_1.png", "a_2.bmp", "a_2.png", "a_010.png", "a_10.png", "b1c2.png", "b1c10.png", "b2.png"]
    for name in sorted(names, key=hash):
        put(tmp_path / name, content("folder", 1))
    assert [window.name for window in drained(opened("folder", tmp_path, watch=False))] == names


def test_list_without_watching_is_gone_through_in_linear_time(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number}.png").touch()
    source = opened("folder", tmp_path, watch=False, seen=lambda _key: True)
    started = time.monotonic()
    assert drained(source) == []
    assert time.monotonic() - started < 5


def test_loop_begins_again_with_other_keys_and_without_asking_what_was_decided(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        put(tmp_path / f"{name}.png", content("folder", number))
    source = opened("folder", tmp_path, loop=True, seen=lambda key: pytest.fail(f"asked for {key}"))
    started = time.monotonic()
    windows = [first(source) for _ in range(300)]
    assert time.monotonic() - started < 3, "a round must not wait for the next scan"
    assert [Path(window.name).stem for window in windows] == NAMES * 100
    assert len({window.key for window in windows}) == 300
    assert not source.exhausted


def test_loop_takes_new_files_in_and_leaves_removed_ones_out(tmp_path: Path) -> None:
    put(tmp_path / "a.png", content("folder", 1))
    source = opened("folder", tmp_path, loop=True, rate_per_s=200)
    first(source)
    put(tmp_path / "b.png", content("folder", 2))
    wait_until(lambda: first(source).name == "b.png", 5, "the new file")
    (tmp_path / "a.png").unlink()
    until_s = time.monotonic() + 0.5
    while time.monotonic() < until_s:
        first(source)
    assert {first(source).name for _ in range(6)} == {"b.png"}


def test_loop_over_an_empty_folder_waits(tmp_path: Path) -> None:
    source = opened("folder", tmp_path, loop=True)
    assert source.read(0.2) is None and not source.exhausted
    put(tmp_path / "a.png", content("folder", 1))
    assert first(source).name == "a.png"


def test_rate_is_kept_without_drift(tmp_path: Path) -> None:
    put(tmp_path / "a.png", content("folder", 1))
    source = opened("folder", tmp_path, loop=True, rate_per_s=50)
    started = time.monotonic()
    for _ in range(41):
        first(source)
    assert 0.79 <= time.monotonic() - started < 1.2  # 40 periods of 20 ms


def test_rate_counts_as_nothing_came(tmp_path: Path) -> None:
    put(tmp_path / "a.png", content("folder", 1))
    source = opened("folder", tmp_path, loop=True, rate_per_s=2)
    first(source)
    assert source.read(0.01) is None


def test_pause_is_made_up_for_one_second_at_most(tmp_path: Path) -> None:
    put(tmp_path / "a.png", content("folder", 1))
    clock = _MovedClock()
    source = open_source(
        "folder", {"path": str(tmp_path), "loop": True, "rate_per_s": 10}, seen=lambda _key: False, clock=clock
    )
    first(source)
    clock.moved_s = 60
    burst = 0
    while source.read(0) is not None:
        burst += 1
    assert 10 <= burst <= 12


def test_pattern_chooses_by_name_whatever_the_suffix(tmp_path: Path) -> None:
    for name in ("cam1_1.PNG", "cam2_1.png", "cam1_2.dat", "notes.txt"):
        put(tmp_path / name, content("folder", 1))
    names = [window.name for window in drained(opened("folder", tmp_path, pattern="CAM1_*", watch=False))]
    assert names == ["cam1_1.PNG", "cam1_2.dat"]


def test_hidden_files_folders_and_other_files_are_left_alone(tmp_path: Path) -> None:
    put(tmp_path / "a.PNG", content("folder", 1))
    (tmp_path / ".b.png").write_bytes(content("folder", 2))
    (tmp_path / "c.png").mkdir()
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert [window.name for window in drained(opened("folder", tmp_path, watch=False))] == ["a.PNG"]


def test_name_that_is_not_utf8_becomes_text_that_can_be_stored(tmp_path: Path) -> None:
    put(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")), content("folder", 1))
    (window,) = drained(opened("folder", tmp_path, watch=False))
    assert window.data is not None
    assert window.name == "caf\\xe9.png" and window.key.encode().startswith(b"caf\\xe9.png:")
    assert read_window(next(tmp_path.iterdir()), source="file").name.encode().endswith(b"caf\\xe9.png")


def test_file_larger_than_any_picture_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    put(path, b"")
    os.truncate(path, MAX_FILE_BYTES + 1)
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))
    (window,) = drained(opened("folder", tmp_path, watch=False))
    assert window.data is None and window.raw is None
    assert window.problem == "expected a file of at most 268,435,456 bytes, got 268,435,457"


def test_single_file_is_a_source_too(tmp_path: Path) -> None:
    put(tmp_path / "one.wav", content("audio_file", 1))
    put(tmp_path / "other.wav", content("audio_file", 2))
    (window,) = drained(opened("audio_file", tmp_path / "one.wav", watch=False))
    assert window.name == "one.wav"


FAULTS = {
    "truncated": (encoded("JPEG")[:-40], "cut short"),
    "truncated png": (encoded("PNG")[:-12], "cut short"),
    "empty": (b"", "empty"),
    "text": (b"no picture", "not a picture"),
    "1x1": (encoded("PNG", np.zeros((1, 1, 3), np.uint8)), "shorter than 4 on a side"),
    "16 bit": (png_with(8, 8, 16, 2, (b"\0" + bytes(48)) * 8), "8 bits per channel, got 16"),
    "cmyk": (encoded("JPEG", mode="CMYK"), "CMYK"),
    "huge header": (png_with(20_000, 20_000), "at most 50,000,000 pixels"),
    "sound": (pcm(np.zeros(400)), "expected a colour picture"),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_picture_that_cannot_be_judged_is_stopped_at_the_gate_with_its_reason(fault: str, tmp_path: Path) -> None:
    raw, words = FAULTS[fault]
    put(tmp_path / "bad.jpg", raw)
    put(tmp_path / "good.png", encoded("PNG"))
    bad, good = drained(opened("folder", tmp_path, watch=False))
    manifest = bundle().manifest
    problem = check(bad, manifest).problem
    assert problem is not None and words in problem
    assert bad.raw == raw, "what came is kept, so that a person can see it"
    assert check(good, manifest).problem is None


def test_sound_that_cannot_be_judged_is_a_window_with_its_reason(tmp_path: Path) -> None:
    put(tmp_path / "bad.wav", content("audio_file", 1)[:-11])
    (window,) = drained(opened("audio_file", tmp_path, watch=False))
    assert window.data is None and window.problem is not None and "cut short" in window.problem


def test_bytes_decide_what_they_are_not_the_name() -> None:
    picture = decode_window(encoded("WEBP"), name="x.wav", source="test", media_type="audio/wav")
    assert picture.media_type == "image/webp" and picture.data is not None and picture.data.ndim == 3
    sound = decode_window(content("audio_file", 1), name="x.jpg", source="test", media_type="image/jpeg")
    assert sound.media_type == "audio/wav" and sound.sample_rate_hz == 8000


def test_kind_of_file_is_told_by_its_name() -> None:
    assert media_kind(Path("a/b.JPeG")) == "image"
    assert media_kind(Path("b.wav")) == "audio"
    assert media_kind(Path("jpg")) is None


def test_file_that_is_not_there_is_a_window_with_its_problem(tmp_path: Path) -> None:
    window = read_window(tmp_path / "nowhere.png", source="file")
    assert window.data is None and window.problem == "cannot be read: No such file or directory"


class _MovedClock(SystemClock):
    """The system's clock, moved on by hand."""

    moved_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.moved_s
