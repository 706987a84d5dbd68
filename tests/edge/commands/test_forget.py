"""What is forgotten is gone from the disk, and the record says so."""

import json
from pathlib import Path

import pytest

from edge.retention import StoreLimits
from edge.store import Store
from edge.wire.rows import EventRow
from tests.bundles import bundle_bytes
from tests.clocks import HeldClock
from tests.edge.command import edge
from tests.edge.commands.test_infer import picture
from tests.rows import decision

CONFIG = """
[device]
name = "box-1"
[station.main]
model = "brightness"
bundle = "glass.lsb"
audit_share = 0
keep = "all"
source = { kind = "folder", path = "inbox", watch = false }
"""


@pytest.fixture
def device(tmp_path: Path) -> Path:
    (tmp_path / "glass.lsb").write_bytes(bundle_bytes())
    (tmp_path / "box.toml").write_text(CONFIG)
    for number in range(3):
        picture(tmp_path / "inbox" / f"{number}.png", 250 - number)
    assert edge("run", "-c", "box.toml", "--drain", cwd=tmp_path).returncode == 0
    return tmp_path


def proofs(device: Path) -> list[dict[str, object]]:
    with Store.open_read_only(device / "data" / "lineside.sqlite", clock=HeldClock()) as store:
        rows = store.rows(kind="event")
    return [row.data for row in rows if isinstance(row, EventRow) and row.name == "inputs_forgotten"]


def on_disk(device: Path, content: bytes) -> bool:
    return any(content in path.read_bytes() for path in (device / "data").glob("lineside.sqlite*"))


def test_input_of_a_decision_is_gone_from_the_disk_and_the_decision_stays(device: Path) -> None:
    rows = [json.loads(line) for line in edge("log", "-c", "box.toml", "--json", cwd=device).stdout.splitlines()]
    content = (device / "inbox" / "1.png").read_bytes()
    assert on_disk(device, content)
    number = next(row["seq"] for row in rows if row["input"]["name"] == "1.png")
    result = edge("forget", str(number), "-c", "box.toml", "--why", "asked by letter", cwd=device)
    assert result.returncode == 0, result.stderr
    assert "1 kept inputs erased" in result.stdout
    assert not on_disk(device, content)
    assert on_disk(device, (device / "inbox" / "2.png").read_bytes())
    (proof,) = proofs(device)
    assert proof["count"] == 1 and proof["why"] == "asked by letter"
    assert proof["digests"] == [next(row["input"]["digest"] for row in rows if row["seq"] == number)]
    assert len(edge("log", "-c", "box.toml", "--json", cwd=device).stdout.splitlines()) == 3


def test_everything_before_a_time_is_forgotten(device: Path) -> None:
    assert edge("forget", "--before", "2001-01-01", "-c", "box.toml", cwd=device).stdout.startswith("0 kept")
    assert edge("forget", "--before", "2999-01-01", "-c", "box.toml", cwd=device).stdout.startswith("3 kept")
    assert [proof["count"] for proof in proofs(device)] == [0, 3]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected either"),
        (("1", "--before", "2026-01-01"), "expected either"),
        (("99",), "no decision 99"),
        (("1", "--station", "main"), "expected either"),
        (("--before", "now", "--station", "mian"), "no station mian in this record"),
        (("--before", "soon"), "expected a time"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_lost(device: Path, arguments: tuple[str, ...], words: str) -> None:
    result = edge("forget", *arguments, "-c", "box.toml", cwd=device)
    assert result.returncode == 2
    assert words in result.stderr
    assert proofs(device) == []


def test_inputs_beyond_their_age_are_dropped_and_counted(tmp_path: Path) -> None:
    clock = HeldClock()
    limits = StoreLimits(input_age_days=7)
    with Store.open(tmp_path / "record.db", clock=clock, durability="process", limits=limits) as store:
        for name in ("old", "new"):
            row = decision(name, raw=name.encode(), at_ms=clock.now_ms())
            store.append_decision(row, input_key=name, keep=(name.encode(), "image/jpeg"))
            clock.forward(4 * 86_400)
        dropped = store.prune()
        assert (dropped.unsent_inputs, dropped.uploaded_inputs) == (1, 0)
        assert store.inputs.get(decision(raw=b"old").input.digest) is None
        assert store.inputs.get(decision(raw=b"new").input.digest) is not None
