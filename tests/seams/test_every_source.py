"""Every source keeps the same promises, whatever it reads from; one suite over every driver of the table."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edge.clock import SystemClock
from edge.errors import ConfigError, SourceError
from edge.sources import SOURCES, open_source
from edge.sources.files import decode_window
from edge.sources.interface import Telling
from edge.sources.reopening import ReopeningSource
from edge.values import Window
from tests.seams.source_rigs import FINITE, RIGS, STORED, read_all, source_of

KINDS = sorted(RIGS)


def test_suite_runs_over_every_driver() -> None:
    assert set(RIGS) - {"scripted", "video", "heard"} == set(SOURCES)


@pytest.mark.parametrize("kind", KINDS)
def test_each_input_comes_once_with_its_data_and_a_key_of_its_own(kind: str, tmp_path: Path) -> None:
    with source_of(kind, "ggg", tmp_path) as source:
        windows = read_all(source, 3)
        assert source.read(0.05) is None
    assert len({window.key for window in windows}) == 3
    for window in windows:
        assert window.problem is None and window.data is not None
        assert window.source == source.kind and window.name and window.media_type.split("/")[0] in ("image", "audio")
        assert (window.data.ndim, window.data.dtype.name) in ((3, "uint8"), (1, "float32"))
        assert (window.sample_rate_hz is not None) == (window.data.ndim == 1)


@pytest.mark.parametrize("kind", KINDS)
def test_file_of_an_input_gives_the_same_data_again(kind: str, tmp_path: Path) -> None:
    with source_of(kind, "g", tmp_path) as source:
        (window,) = read_all(source, 1)
    raw = window.raw if window.raw is not None else window.encode() if window.encode else None
    assert raw is not None
    again = decode_window(raw, name="again", source="test", media_type=window.media_type)
    assert again.media_type == window.media_type and again.sample_rate_hz == window.sample_rate_hz
    assert again.data is not None and window.data is not None and np.array_equal(again.data, window.data)


@pytest.mark.parametrize("kind", KINDS)
def test_input_that_cannot_be_judged_is_a_window_with_its_reason_and_the_next_one_comes(
    kind: str, tmp_path: Path
) -> None:
    with source_of(kind, "gbg", tmp_path) as source:
        windows = read_all(source, 3)
    assert [window.problem is None for window in windows] == [True, False, True]
    bad = windows[1]
    assert bad.data is None and bad.problem and bad.key not in (windows[0].key, windows[2].key)
    assert bad.raw is not None or bad.encode is not None, "people can see why"


@pytest.mark.parametrize("kind", sorted(set(KINDS) - FINITE))
def test_wait_in_vain_ends_in_time_and_is_no_end(kind: str, tmp_path: Path) -> None:
    with source_of(kind, "", tmp_path) as source:
        source.read(0)
        started = time.monotonic()
        assert source.read(0.3) is None
        assert 0.25 < time.monotonic() - started < 0.8
        assert not source.exhausted


@pytest.mark.parametrize("kind", sorted(FINITE))
def test_source_that_ends_says_so_after_its_last_input(kind: str, tmp_path: Path) -> None:
    with source_of(kind, "gg", tmp_path) as source:
        assert not source.exhausted
        read_all(source, 2)
        source.read(0.2)  # a file's end may be noticed only now
        assert source.read(0) is None
        assert source.exhausted


@pytest.mark.parametrize("kind", KINDS)
def test_closed_source_refuses_and_closes_again(kind: str, tmp_path: Path) -> None:
    with source_of(kind, "g", tmp_path) as source:
        source.close()
        source.close()
        assert source.exhausted
        with pytest.raises(SourceError, match="closed") as caught:
            source.read(0)
        assert not caught.value.retry


@pytest.mark.parametrize("kind", sorted(set(KINDS) - FINITE - STORED))
def test_closing_wakes_a_reader_that_waits(kind: str, tmp_path: Path) -> None:
    with source_of(kind, "", tmp_path) as source:
        ended: list[str] = []

        def read() -> None:
            try:
                source.read(10)
            except SourceError as error:
                ended.append(str(error))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        time.sleep(0.05)
        source.close()
        reader.join(3)
        assert len(ended) == 1 and "closed" in ended[0]


@pytest.mark.parametrize("kind", KINDS)
def test_source_lives_in_whatever_thread_its_station_has(kind: str, tmp_path: Path) -> None:
    windows: list[Window] = []

    def work() -> None:
        with source_of(kind, "gg", tmp_path) as source:
            windows.extend(read_all(source, 2))

    station = threading.Thread(target=work, daemon=True)
    station.start()
    station.join(20)
    assert len(windows) == 2 and not station.is_alive()


@pytest.mark.parametrize("kind", sorted(STORED))
def test_decided_inputs_do_not_come_again(kind: str, tmp_path: Path) -> None:
    with source_of(kind, "ggg", tmp_path) as source:
        decided = {window.key for window in read_all(source, 3)}
    with source_of(kind, "", tmp_path, lambda key: key in decided) as source:
        assert source.read(0.3) is None


@pytest.mark.parametrize("kind", sorted(set(KINDS) - STORED - {"scripted"}))
def test_live_inputs_have_other_keys_after_a_restart(kind: str, tmp_path: Path) -> None:
    keys: list[str] = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        with source_of(kind, "g", tmp_path / name) as source:
            (window,) = read_all(source, 1)
            assert window.live, "its key needs no place among the inputs that were decided"
            keys.append(window.key)
    assert len(set(keys)) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_source_that_can_be_lost_is_the_same_behind_the_one_that_opens_it_again(kind: str, tmp_path: Path) -> None:
    told: list[str | None] = []

    def tell(problem: str | None) -> None:
        told.append(problem)

    with source_of(kind, "gg", tmp_path) as inner:
        source = ReopeningSource(inner.kind, lambda: inner, SystemClock(), tell)
        assert len(read_all(source, 2)) == 2
        assert source.problem is None and told == []
        if isinstance(inner, Telling):
            assert inner.problem is None
        source.close()
        assert inner.exhausted


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_unknown_setting_is_named_with_the_known_ones(kind: str, tmp_path: Path) -> None:
    needed = {"path": str(tmp_path)} if kind in STORED else {"device": 0} if kind == "camera" else {}
    with pytest.raises(ConfigError, match=f"source {kind}: colour") as caught:
        open_source(kind, {**needed, "colour": "red"}, seen=lambda _key: False, clock=SystemClock())
    assert caught.value.hint.startswith("known settings: ")
