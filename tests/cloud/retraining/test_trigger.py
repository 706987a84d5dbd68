"""One cause starts one training, whatever dies in between; its product comes back as a candidate."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete
from typer.testing import CliRunner

from cloud import audit, tables
from cloud.__main__ import app
from cloud.alerts.rules import Retraining
from cloud.errors import InvalidError, NotFoundError
from cloud.retraining import runner
from cloud.retraining.tables import drift_episodes, retrainings
from cloud.retraining.trigger import Retrainings
from cloud.telemetry.tables import drift_states
from tests.cloud.alerts.test_watch import webhook
from tests.cloud.retraining.test_datasets import answer, deferred
from tests.cloud.serving import serving
from tests.cloud.world import World, up
from tests.waiting import wait_until

COUNTS = "import os; open(os.environ['COUNT'], 'a').write('x'); print(os.environ['LINESIDE_DATASET'])"


@pytest.fixture(autouse=True)
def _waiting(world: World) -> None:
    world.enrol("box-1")
    world.take(up("box-1", [deferred(seq) for seq in range(1, 41)]))


@pytest.fixture
def count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which each run of the command adds a letter."""
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    return tmp_path / "count"


def made(world: World, folder: str = "retraining", **settings: Any) -> Retrainings:
    """Return the trigger as another start of the control plane would have it, or another copy with its own folder."""
    settings = {"command": [sys.executable, "-c", COUNTS], "rest_s": 0, **settings}
    settings = settings if "url" not in settings else {k: v for k, v in settings.items() if k != "command"}
    wanted = Retraining(model="brightness", **settings)
    datasets, data = world.services.retrainings.datasets, world.config.data_dir
    return Retrainings(world.services.store, world.clock, datasets, [wanted], data / folder, inputs=data / "inputs")


def until_ended(trigger: Retrainings, number: int = 1) -> dict[str, Any]:
    """Look until so many retrainings have ended; return the newest."""

    def ended() -> bool:
        trigger.look()
        return len(trigger.rows(states=("finished", "failed"))) >= number

    wait_until(ended, 30, "the command")
    return trigger.rows()[0]


def drift(world: World, *devices: str) -> None:
    """Let just these devices drift."""
    with world.services.store.write() as connection:
        connection.execute(delete(drift_states))
        for device in devices:
            row: dict[str, Any] = {
                "device": device,
                "station": "s",
                "model": "brightness",
                "metric": "m",
                "against": "bundle",
            }
            row |= {"stage": "camera", "digest": "", "drifting": True, "agreeing": 0, "looked_through_ms": 0}
            connection.execute(drift_states.insert().values(**row, words="", updated_at_ms=0))


def test_enough_new_labels_start_one_and_only_more_start_the_next(world: World, count: Path) -> None:
    trigger = made(world, on_labels=10)
    answer(world, range(1, 10))
    trigger.look()
    assert trigger.rows() == []
    answer(world, range(10, 13))
    row = until_ended(trigger)
    assert (row["state"], row["kind"], row["reason"]) == ("finished", "labels", "12 new reviewed labels of brightness")
    answer(world, range(13, 22))
    for _ in range(3):
        made(world, on_labels=10).look()
    assert len(trigger.rows()) == 1
    answer(world, range(22, 24))
    until_ended(trigger, 2)
    assert count.read_text() == "xx"
    log = (world.config.data_dir / "retraining" / "1" / runner.LOG).read_text()
    assert log.strip() == str(trigger.datasets.blobs.path(row["dataset"]))


def test_drift_of_many_devices_is_one_cause_and_the_next_drift_another(world: World, count: Path) -> None:
    answer(world, range(1, 4))
    trigger = made(world, on_drift=True)
    trigger.look()
    assert trigger.rows() == []
    for devices in (("box-1",), ("box-1", "box-2"), ("box-2",)):
        drift(world, *devices)
        made(world, on_drift=True).look()
    until_ended(trigger)
    drift(world)
    trigger.look()
    assert len(trigger.rows()) == 1
    drift(world, "box-3")
    until_ended(trigger, 2)
    assert count.read_text() == "xx"
    assert [row.number for row in world.rows(drift_episodes)] == [2]


def test_by_hand_the_same_key_asks_once(world: World, count: Path) -> None:
    trigger = made(world)
    with pytest.raises(InvalidError, match="nobody has answered"):
        trigger.ask("brightness", who="anna", reason="new lamp", key="k")
    with pytest.raises(NotFoundError, match="nothing says how"):
        trigger.ask("other", who="anna", reason="new lamp", key="k")
    answer(world, range(1, 4))
    first = trigger.ask("brightness", who="anna", reason="new lamp", key="k")
    assert trigger.ask("brightness", who="anna", reason="new lamp", key="k") == first
    until_ended(trigger)
    assert count.read_text() == "x"
    with world.services.store.read() as connection:
        said = {row["what"]: (row["who"], row["why"]) for row in audit.rows(connection)}
    assert said["retraining_asked"] == ("anna", "new lamp")
    assert "retraining_finished" in said


@pytest.mark.parametrize("where", ["before it was started", "after it was started", "while it was marked"])
def test_crash_of_the_control_plane_starts_nothing_twice(
    world: World, count: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    answer(world, range(1, 4))
    trigger = made(world)
    trigger.ask("brightness", who="anna", reason="x", key="k")
    real: Callable[..., Any] = Retrainings._spawn

    def dying(self: Retrainings, row: dict[str, Any], command: list[str]) -> None:
        if where == "after it was started":
            real(self, row, command)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Retrainings, "_set" if where == "while it was marked" else "_spawn", dying)
        with pytest.raises((KeyboardInterrupt, TypeError)):
            trigger.look()
    row = until_ended(made(world))
    assert (row["state"], row["attempts"]) == ("finished", 1)
    assert count.read_text() == "x"


def test_command_started_many_times_for_one_folder_runs_once(tmp_path: Path, count: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, "-m", "cloud.retraining.runner", str(folder), "--", sys.executable, "-c", COUNTS]
    environment = {**os.environ, "LINESIDE_DATASET": "d"}
    running = [subprocess.Popen(command, env=environment) for _ in range(4)]
    for one in running:
        one.wait(60)
    assert count.read_text() == "x"
    assert runner.progress(folder) == runner.Progress("ended", 0)


def test_command_outlives_the_control_plane_and_is_found_again(world: World, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    answer(world, range(1, 4))
    command = [sys.executable, "-c", f"open({str(go)!r}).read()"]
    trigger = made(world, command=command)
    trigger.ask("brightness", who="anna", reason="x", key="k")
    trigger.look()
    folder = world.config.data_dir / "retraining" / "1"
    wait_until(lambda: runner.progress(folder).state == "running", 20, "the command")
    again = made(world, command=command)
    again.look()
    assert again.rows()[0]["state"] == "running"
    go.write_text("go")
    assert until_ended(again)["state"] == "finished"


def test_command_that_fails_cannot_be_started_or_is_killed_says_so(world: World, tmp_path: Path) -> None:
    answer(world, range(1, 4))
    for number, (command, words) in enumerate(
        (([sys.executable, "-c", "raise SystemExit(3)"], "exit code 3"), (["no-such-program"], "exit code 127")), 1
    ):
        trigger = made(world, command=command)
        trigger.ask("brightness", who="anna", reason="x", key=f"key {number}")
        row = until_ended(trigger, number)
        assert row["state"] == "failed"
        assert words in row["error"]
    trigger = made(world, command=[sys.executable, "-c", "import time; time.sleep(60)"])
    trigger.ask("brightness", who="anna", reason="x", key="killed")
    trigger.look()
    folder = world.config.data_dir / "retraining" / "3"
    wait_until(lambda: runner.progress(folder).state == "running", 20, "the command")
    os.killpg(trigger._children[0].pid, signal.SIGKILL)
    assert "without saying how" in until_ended(trigger, 3)["error"]


def test_one_model_is_trained_once_at_a_time_and_rests(world: World, count: Path) -> None:
    answer(world, range(1, 4))
    trigger = made(world, rest_s=600)
    trigger.ask("brightness", who="anna", reason="x", key="first")
    trigger.ask("brightness", who="anna", reason="x", key="second")
    until_ended(trigger)
    trigger.look()
    assert [row["state"] for row in trigger.rows()] == ["waiting", "finished"]
    world.clock.forward(601)
    until_ended(trigger, 2)
    assert count.read_text() == "xx"


def test_webhook_is_asked_once_with_the_dataset_and_its_product_ends_it(world: World, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret that both know")
    answer(world, range(1, 4))
    with webhook(lambda _n: 202) as (url, heard):
        trigger = made(world, url=url, secret_file=tmp_path / "secret", command=None)
        trigger.ask("brightness", who="anna", reason="new lamp", key="k")
        for _ in range(3):
            trigger.look()
            trigger = made(world, url=url, secret_file=tmp_path / "secret", command=None)
    ((headers, body),) = heard
    asked = json.loads(body)
    row = trigger.rows()[0]
    assert (asked["dataset"], asked["reason"], headers["Lineside-Delivery"]) == (
        row["dataset"],
        "new lamp",
        "retraining-1",
    )
    assert row["state"] == "running"
    world.clock.forward(60)
    for digest, lineage in (("11" * 32, {"dataset": "other"}), ("22" * 32, {"dataset": row["dataset"]})):
        with world.services.store.write() as connection:
            bundle = {"name": "brightness", "version": f"2.0.{digest[0]}", "digest": digest, "size_bytes": 1}
            more = {"published_by": "train", "published_at_ms": world.clock.now_ms(), "manifest": {"lineage": lineage}}
            connection.execute(tables.bundles.insert().values(**bundle, **more))
    trigger.look()
    assert (trigger.rows()[0]["state"], trigger.rows()[0]["candidate"]) == ("finished", "22" * 32)


def test_webhook_that_is_not_there_is_tried_again_and_one_that_may_have_heard_is_not(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("a secret that both know")
    answer(world, range(1, 4))
    trigger = made(world, url="http://127.0.0.1:9/", secret_file=tmp_path / "secret", command=None)
    trigger.ask("brightness", who="anna", reason="x", key="k")
    trigger.look()
    trigger.look()
    assert (trigger.rows()[0]["state"], trigger.rows()[0]["attempts"]) == ("waiting", 1)
    with webhook(lambda _n: 500) as (url, heard):
        world.clock.forward(3600)
        trigger = made(world, url=url, secret_file=tmp_path / "secret", command=None)
        trigger.look()
        trigger.look()
    assert len(heard) == 1
    assert (trigger.rows()[0]["state"], "answered 500" in trigger.rows()[0]["error"]) == ("failed", True)
    with world.services.store.write() as connection:
        connection.execute(retrainings.update().values(state="starting"))
    trigger.look()
    assert "stopped while it asked" in trigger.rows()[0]["error"]


def test_command_line_asks_and_lists(world: World) -> None:
    answer(world, range(1, 4))
    world.services.retrainings._wanted["brightness"] = Retraining(model="brightness", command=["true"])
    run = CliRunner()
    with serving(world.services) as client:
        server = ["--server", str(client.base_url)]
        asked = run.invoke(app, ["retrain", "brightness", "--reason", "new lamp", *server])
        assert asked.exit_code == 0, asked.output
        assert "new lamp" in run.invoke(app, ["retrainings", *server]).output
        (row,) = json.loads(run.invoke(app, ["retrainings", "--json", *server]).output)
        assert (row["state"], row["kind"]) == ("waiting", "hand")
        assert run.invoke(app, ["retrain", "other", "--reason", "x", *server]).exit_code == 4


def test_copy_that_takes_the_seat_over_never_starts_what_another_has_claimed(world: World, count: Path) -> None:
    answer(world, range(1, 4))
    first, second = made(world), made(world, folder="elsewhere")
    first.ask("brightness", who="anna", reason="new lamp", key="k")
    with pytest.MonkeyPatch.context() as dies:
        dies.setattr(first, "_spawn", lambda *_: (_ for _ in ()).throw(OSError("killed here")))
        with pytest.raises(OSError, match="killed here"):
            first.look()
    for _ in range(3):
        second.look()
    assert (second.rows()[0]["state"], count.exists()) == ("starting", False)
    again = made(world)  # it comes back, without the seat
    again.look_after()

    def ended() -> bool:
        again.look_after()
        return bool(again.rows()[0]["state"] == "finished")

    wait_until(ended, 30, "the command")
    assert count.read_text() == "x"


def test_run_of_a_copy_that_stays_away_has_failed_after_an_hour_and_is_not_started_again(
    world: World, count: Path
) -> None:
    answer(world, range(1, 4))
    first, second = made(world, command=["sleep", "60"]), made(world, folder="elsewhere")
    first.ask("brightness", who="anna", reason="new lamp", key="k")
    first.look()
    world.clock.forward(3599)
    second.look()
    assert second.rows()[0]["state"] == "running"
    first.look_after()
    world.clock.forward(3599)
    second.look()
    assert second.rows()[0]["state"] == "running", "the other one has looked after it meanwhile"
    world.clock.forward(1)
    second.look()
    row = second.rows()[0]
    assert (row["state"], "not been heard of for an hour" in row["error"]) == ("failed", True)
    for child in first._children:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    assert not count.exists()


def test_copy_that_lacks_the_dataset_version_says_so_instead_of_starting(world: World, count: Path) -> None:
    answer(world, range(1, 4))
    trigger = made(world)
    row = trigger.ask("brightness", who="anna", reason="new lamp", key="k")
    trigger.datasets.blobs.path(row["dataset"]).unlink()
    trigger.look()
    assert "another copy's folder" in trigger.rows()[0]["error"]
    assert not count.exists()
