"""`lineside-export` as a person types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge.bundle import digest_of
from export.__main__ import app
from tests.bundles import bundle_bytes

RUN = CliRunner()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "brightness-1.0.0.lsb"
    path.write_bytes(bundle_bytes())
    return path


def test_inspect_prints_thresholds_and_digest(bundle: Path) -> None:
    result = RUN.invoke(app, ["inspect", str(bundle)])
    assert result.exit_code == 0, result.output
    assert digest_of(bundle.read_bytes()) in result.output
    assert "pass at a defect score of at most 0.05, divert from 0.95 on" in result.output
    assert "good, scratch" in result.output


def test_inspect_json_holds_the_manifest(bundle: Path) -> None:
    result = RUN.invoke(app, ["inspect", str(bundle), "--json"])
    found = json.loads(result.stdout)
    assert found["ref"]["name"] == "brightness"
    assert found["manifest"]["labels"] == ["good", "scratch"]


def test_inspect_of_a_damaged_bundle_says_why_and_exits_3(bundle: Path) -> None:
    bundle.write_bytes(bundle.read_bytes()[:-40])
    result = RUN.invoke(app, ["inspect", str(bundle)])
    assert result.exit_code == 3
    assert "not a bundle" in result.stderr


def test_training_of_an_unknown_model_names_the_missing_file_and_exits_3() -> None:
    result = RUN.invoke(app, ["train", "no_such_model"])
    assert result.exit_code == 3
    assert "models/no_such_model/train.py" in result.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from export.__main__ import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'sklearn', 'cv2', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3], timeout=60)
