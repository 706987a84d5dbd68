"""The replay of a record: real decisions of a real store, chosen, in their order."""

from pathlib import Path
from typing import Any

import pytest

from edge.clock import SystemClock
from edge.errors import SourceError
from edge.imaging import encode_png
from edge.sources import open_source
from edge.sources.replay import ReplaySource
from edge.store import Store
from tests.edge.sources.mjpeg import picture
from tests.rows import decision


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Two stations, 450 decisions; every tenth input was kept."""
    path = tmp_path / "lineside.sqlite"
    kept = [encode_png(picture(number)) for number in range(45)]
    with Store.open(path, clock=SystemClock(), durability="process") as store:
        for number in range(450):
            station, verdict = ("a", "pass") if number % 20 else ("b", "defer")
            raw = kept[number // 10] if number % 10 == 0 else b"gone"
            row = decision(f"{number}.png", raw=raw, station=station, verdict=verdict)
            keep = (raw, "image/png") if number % 10 == 0 else None
            store.append_decision(row, input_key=str(number), keep=keep, wants_outcome=False)
    return path


def replayed(record: Path, **settings: Any) -> tuple[list[str], ReplaySource]:
    source = open_source("replay", {"path": str(record), **settings}, seen=lambda _key: False, clock=SystemClock())
    assert isinstance(source, ReplaySource)
    names = []
    while not source.exhausted:
        window = source.read(1)
        if window is not None:
            assert window.data is not None and window.raw is not None
            names.append(window.name)
    return names, source


def test_kept_inputs_come_in_their_order_and_the_others_are_counted(record: Path) -> None:
    names, source = replayed(record)
    assert names == [f"{number}.png" for number in range(0, 450, 10)]
    (news,) = source.news()
    assert news.name == "replay_incomplete" and news.data["count"] == 405 and source.news() == []
    source.close()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"station": "b"}, range(0, 450, 20)),
        ({"verdict": "pass"}, range(10, 450, 20)),
        ({"after_seq": 401}, range(410, 450, 10)),
        ({"station": "nobody"}, range(0)),
    ],
)
def test_decisions_can_be_chosen(record: Path, settings: dict[str, Any], expected: range) -> None:
    names, source = replayed(record, **settings)
    assert names == [f"{number}.png" for number in expected]
    source.close()


def test_record_that_is_written_to_can_be_read(record: Path) -> None:
    with Store.open(record, clock=SystemClock(), durability="process") as store:
        names, source = replayed(record, station="b")
        store.append_decision(decision("new.png"), input_key="new", wants_outcome=False)
        source.close()
    assert len(names) == 23


@pytest.mark.parametrize("content", [None, b"this is no record" * 100], ids=["missing", "something else"])
def test_what_is_no_record_is_a_source_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "record.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=r"record\.sqlite"):
        open_source("replay", {"path": str(path)}, seen=lambda _key: False, clock=SystemClock())
