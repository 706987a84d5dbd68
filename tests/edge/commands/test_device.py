"""`run`, `status`, `log` and `replay` of a real daemon without a control plane."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.clock import SystemClock
from edge.retention import StoreLimits
from edge.store import Store
from tests.bundles import bundle_bytes
from tests.edge.command import edge
from tests.edge.commands.test_infer import picture
from tests.waiting import wait_until

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


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device that has decided three pictures and one file that is none."""
    folder = tmp_path_factory.mktemp("device")
    (folder / "glass.lsb").write_bytes(bundle_bytes())
    (folder / "box.toml").write_text(CONFIG)
    for number, brightness in enumerate((250, 5, 128)):
        picture(folder / "inbox" / f"{number}.png", brightness)
    (folder / "inbox" / "3.png").write_bytes(b"rubbish")
    result = edge("run", "--config", "box.toml", "--drain", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


def logged(device: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in edge("log", "-c", "box.toml", "--json", cwd=device).stdout.splitlines()]


def test_log_holds_every_decision_in_order(device: Path) -> None:
    rows = logged(device)
    assert [row["verdict"] for row in rows] == ["pass", "divert", "defer", "defer"]
    assert [row["reason"] for row in rows] == [None, None, "unsure", "bad_input"]


def test_log_for_people_names_file_and_reason(device: Path) -> None:
    lines = edge("log", "-c", "box.toml", "--last", "1", cwd=device).stdout.splitlines()
    assert len(lines) == 1
    assert "3.png" in lines[0] and "bad_input" in lines[0]


def test_actuator_saw_what_the_log_holds(device: Path) -> None:
    acted = [json.loads(line) for line in (device / "actions.jsonl").read_text().splitlines()]
    assert [line["decision"] for line in acted] == [row["seq"] for row in logged(device)]


def test_status_tells_the_last_state_and_its_age(device: Path) -> None:
    result = edge("status", "-c", "box.toml", "--json", cwd=device)
    document = json.loads(result.stdout)
    assert document["reported"]["slots"]["brightness"][0]["state"] == "good"
    assert document["age_s"] >= 0


def test_second_run_decides_nothing_again(device: Path) -> None:
    before = logged(device)
    assert edge("run", "-c", "box.toml", "--drain", cwd=device).returncode == 0
    assert logged(device) == before


def test_replay_gives_the_same_scores_to_the_bit(device: Path) -> None:
    for row in logged(device)[:3]:
        result = edge("replay", str(row["seq"]), "-c", "box.toml", "--json", cwd=device)
        answer = json.loads(result.stdout)
        assert (result.returncode, answer["same"]) == (0, True)
        assert answer["scores"] == answer["recorded"] == row["scores"]


def test_replay_says_plainly_why_there_is_nothing_to_judge_again(tmp_path: Path) -> None:
    tile = Path(__file__).parents[3] / "models" / "magnetic_tile" / "magnetic_tile-1.1.0.lsb"
    (tmp_path / "tile.lsb").write_bytes(tile.read_bytes())
    config = CONFIG.replace('"brightness"', '"magnetic_tile"').replace("glass.lsb", "tile.lsb")
    (tmp_path / "box.toml").write_text(config.replace('keep = "all"', 'keep = "features"'))
    (tmp_path / "inbox").mkdir()
    grain = np.random.default_rng(3).normal(110, 25, (256, 256, 1)).clip(0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "inbox" / "1.png"), cv2.GaussianBlur(grain, (3, 3), 1))
    assert edge("run", "--config", "box.toml", "--drain", cwd=tmp_path).returncode == 0
    assert edge("check", "--config", "box.toml", cwd=tmp_path).returncode == 0
    (row,) = [json.loads(line) for line in edge("log", "-c", "box.toml", "--json", cwd=tmp_path).stdout.splitlines()]
    assert not row["input"]["kept"] and len(row["input"]["features"]) == 64
    result = edge("replay", str(row["seq"]), "-c", "box.toml", cwd=tmp_path)
    assert result.returncode == 4 and "only features of its input 1.png were kept" in result.stdout
    assert edge("forget", str(row["seq"]), "-c", "box.toml", cwd=tmp_path).stdout.startswith("1 kept inputs erased")
    assert "was erased on request" in edge("replay", str(row["seq"]), "-c", "box.toml", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("station", "words"),
    [
        ('keep = "none"', 'was not kept; keep = "all" at the station keeps every one'),
        ('keep = "all"\nkeep_days = 0.000001', "its time is over"),
    ],
    ids=["none", "over"],
)
def test_replay_of_an_input_that_is_not_kept_says_why(tmp_path: Path, station: str, words: str) -> None:
    (tmp_path / "glass.lsb").write_bytes(bundle_bytes())
    (tmp_path / "box.toml").write_text(CONFIG.replace('keep = "all"', station))
    picture(tmp_path / "inbox" / "1.png", 250)
    assert edge("run", "--config", "box.toml", "--drain", cwd=tmp_path).returncode == 0
    if "keep_days" in station:
        limits = StoreLimits(keep_days={"main": 1e-6})
        path = tmp_path / "data" / "lineside.sqlite"
        with Store.open(path, clock=SystemClock(), durability="process", limits=limits) as store:
            wait_until(lambda: store.prune().expired_inputs == 1, 20, "its time to be over")
    (row,) = [json.loads(line) for line in edge("log", "-c", "box.toml", "--json", cwd=tmp_path).stdout.splitlines()]
    assert words in edge("replay", str(row["seq"]), "-c", "box.toml", cwd=tmp_path).stdout


def test_replay_of_an_unknown_decision_says_so(device: Path) -> None:
    result = edge("replay", "4711", "-c", "box.toml", cwd=device)
    assert result.returncode == 4
    assert "there is no decision 4711" in result.stdout


def test_replay_after_the_bundle_is_gone_says_so(device: Path) -> None:
    (bundle,) = (device / "data" / "bundles").glob("*.lsb")
    aside = bundle.with_suffix(".aside")
    bundle.rename(aside)
    result = edge("replay", str(logged(device)[0]["seq"]), "-c", "box.toml", cwd=device)
    aside.rename(bundle)
    assert result.returncode == 4
    assert "not on this device any more" in result.stdout


def test_status_of_a_device_that_never_ran_says_so(tmp_path: Path) -> None:
    (tmp_path / "box.toml").write_text(CONFIG)
    result = edge("status", "-c", "box.toml", cwd=tmp_path)
    assert result.returncode == 1
    assert "never started here" in result.stdout


def test_wrong_configuration_ends_with_exit_code_2_and_all_mistakes(tmp_path: Path) -> None:
    (tmp_path / "box.toml").write_text(CONFIG.replace("audit_share = 0", "audit_share = 7\nkep = 'all'"))
    result = edge("run", "-c", "box.toml", cwd=tmp_path)
    assert result.returncode == 2
    assert "2 mistake(s)" in result.stderr and "did you mean 'keep'" in result.stderr


def test_help_names_every_command() -> None:
    text = edge("--help", cwd=Path.cwd()).stdout
    assert all(name in text for name in ("infer", "run", "status", "log", "replay"))
