"""The book of runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge.errors import ConfigError
from export.runs import Runs, differences


def begin(runs: Runs, name: str = "gear", digest: str = "aa11") -> str:
    return runs.begin(
        name=name, version="1.0.0", command="fit", code="c0de", dataset_digest=digest, settings={"seed": 1}
    )


def test_run_that_ended_holds_its_results(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    run = begin(runs)
    runs.end(run, "done", results={"auroc": 0.9}, resources={"seconds": 3.0}, artefacts={"digest": "d"})
    found = runs.get(run[:4])
    assert (found.state, found.results, found.artefacts) == ("done", {"auroc": 0.9}, {"digest": "d"})
    assert found.ended_at is not None


def test_run_that_goes_on_says_running_until_it_ends(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    run = begin(runs)
    assert Runs(tmp_path).get(run).state == "running"
    runs.end(run, "failed")
    assert Runs(tmp_path).get(run).state == "failed"
    assert [path.name for path in tmp_path.iterdir()] == ["runs.sqlite"]


def test_run_whose_process_was_killed_says_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from export.runs import Runs\n"
        "runs = Runs(Path(sys.argv[1]))\n"
        "runs.begin(name='gear', version='1.0.0', command='fit', code='c', dataset_digest='d', settings={})\n"
        "os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert [run.state for run in Runs(tmp_path).list()] == ["killed"]
    assert [run.name for run in Runs(tmp_path).list(state="killed")] == ["gear"]
    assert Runs(tmp_path).list(state="running") == []


def test_list_filters_by_name_state_and_data(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    first, second = begin(runs), begin(runs, "pipe", "bb22")
    runs.end(second, "failed")
    assert [run.id for run in runs.list()] == [second, first]
    assert [run.id for run in runs.list(name="gear")] == [first]
    assert [run.id for run in runs.list(state="failed")] == [second]
    assert [run.id for run in runs.list(dataset="bb")] == [second]


def test_comparison_shows_what_differs_and_nothing_else(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    a, b = begin(runs), begin(runs)
    for run, auroc in ((a, 0.9), (b, 0.8)):
        runs.end(run, "done", results={"auroc": auroc})
    found = {what: (x, y) for what, x, y in differences(runs.get(a), runs.get(b))}
    assert found["results.auroc"] == ("0.9", "0.8")
    assert "settings.seed" not in found


def test_unknown_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run begins"):
        Runs(tmp_path).get("zz")


def test_two_processes_write_into_one_file(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from export.runs import Runs\n"
        "runs = Runs(Path(sys.argv[1]))\n"
        "for n in range(20): runs.begin(name='n', version='1', command='fit', code='', dataset_digest='', settings={})"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    assert len(Runs(tmp_path).list()) == 40
