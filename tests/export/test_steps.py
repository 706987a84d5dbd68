"""Each step alone, as a person types it."""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from edge.bundle import load
from export import scores
from export.__main__ import app
from tests.bundles import bundle_bytes
from tests.export.networks import spot_network

RUN = CliRunner()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "brightness-1.0.0.lsb"
    path.write_bytes(bundle_bytes())
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Bright pictures are good, dark ones scratched, as the bundle's network sees it."""
    chance = np.random.default_rng(4)
    for label, level in (("good", 215), ("scratch", 40)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(60):
            shade = int(level + chance.integers(-25, 25))
            grain = chance.integers(0, 9, (24, 24, 3))
            cv2.imwrite(str(tmp_path / "photos" / label / f"p{number}.png"), (shade + grain).astype(np.uint8))
    return tmp_path / "photos"


def run(*words: object) -> tuple[int, str]:
    result = RUN.invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


def test_quantize_writes_both_formats_and_how_far_they_are_apart(tmp_path: Path, photos: Path) -> None:
    onnx.save(spot_network(), str(tmp_path / "net.onnx"))
    code, output = run("quantize", tmp_path / "net.onnx", "--calibration", photos, "--out", tmp_path / "int8")
    assert code == 0, output
    found = json.loads((tmp_path / "int8" / "model.json").read_text())
    assert set(found["models"]) == {"onnx", "tflite"}
    assert (tmp_path / "int8" / "model.tflite").stat().st_size == found["sizes_bytes"]["model.tflite"]
    assert found["distance"]["agreement"] > 0.9


def test_quantize_of_something_else_says_so(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"nothing")
    code, output = run("quantize", tmp_path / "net.onnx", "--calibration", photos)
    assert code == 3
    assert "not an ONNX file" in output


def with_input(folder: Path, *, batch: int | str = 1, kind: int = onnx.TensorProto.FLOAT) -> Path:
    """Write the spot network with another input."""
    network = spot_network()
    taken = network.graph.input[0].type.tensor_type
    taken.elem_type = kind
    sizes = [batch, *(dim.dim_value for dim in taken.shape.dim[1:])]
    network.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info(network.graph.input[0].name, kind, sizes))
    onnx.save(network, str(folder / "net.onnx"))
    return folder / "net.onnx"


def test_quantize_takes_a_network_whose_batch_is_open(tmp_path: Path, photos: Path) -> None:
    code, output = run("quantize", with_input(tmp_path, batch="n"), "--calibration", photos, "--out", tmp_path)
    assert code == 0, output


@pytest.mark.parametrize(
    ("change", "says"),
    [({"batch": 4}, "batch 1"), ({"kind": onnx.TensorProto.UINT8}, "one float input")],
)
def test_quantize_of_what_it_does_not_take_names_the_command_that_does(
    change: dict[str, int], says: str, tmp_path: Path, photos: Path
) -> None:
    model = with_input(tmp_path, batch=change.get("batch", 1), kind=change.get("kind", onnx.TensorProto.FLOAT))
    code, output = run("quantize", model, "--calibration", photos, "--out", tmp_path)
    assert code == 3
    assert says in output
    assert "lineside-export wrap" in output


def test_quantize_with_values_that_are_not_there_says_so(tmp_path: Path) -> None:
    code, output = run("quantize", with_input(tmp_path), "--calibration", tmp_path / "no.npy", "--out", tmp_path)
    assert code == 3
    assert "preprocessed values" in output


def test_calibrate_makes_a_new_bundle_with_its_own_promise(tmp_path: Path, photos: Path, bundle: Path) -> None:
    out = tmp_path / "brightness-1.0.1.lsb"
    code, output = run("calibrate", bundle, photos, "--out", out, "--version", "1.0.1", "--alpha", "0.2")
    assert code == 0, output
    made = load(out).manifest
    guarantee = made.policy.guarantee
    assert guarantee is not None
    assert (guarantee.alpha_escape, guarantee.coverage) == (0.2, 1.0)
    assert made.lineage["calibrated"]["of"] == load(bundle).ref.digest
    assert load(out).files["model.onnx"] == load(bundle).files["model.onnx"]


def test_audit_that_is_passed_is_written_into_a_new_bundle(tmp_path: Path, photos: Path, bundle: Path) -> None:
    (tmp_path / "limits.toml").write_text('[[limit]]\nmetric = "recall"\nlabel = "scratch"\nmin = 0.8\n')
    out, html = tmp_path / "audited.lsb", tmp_path / "page.html"
    code, output = run(
        "audit", bundle, photos, "--limits", tmp_path / "limits.toml", "--out", out, "--html", html, "--against", bundle
    )
    assert code == 0, output
    assert "PASSED" in output
    assert load(out).manifest.audit["passed"] is True
    assert "The audit: passed" in html.read_text()


def test_audit_that_fails_ends_with_exit_code_1(tmp_path: Path, photos: Path, bundle: Path) -> None:
    (tmp_path / "limits.toml").write_text('[[limit]]\nmetric = "recall"\nlabel = "scratch"\nmin = 0.999\n')
    code, output = run("audit", bundle, photos, "--limits", tmp_path / "limits.toml", "--json")
    assert code == 1
    assert "too few examples" in json.loads(output)["audit"]["limits"][0]["why"]


def test_audit_keeps_the_scores_that_the_bench_of_risk_reads(tmp_path: Path, photos: Path, bundle: Path) -> None:
    kept = tmp_path / "scores.npz"
    code, output = run("audit", bundle, photos, "--scores", kept)
    assert code == 0, output
    found = scores.read(kept)
    assert found.task == "inspect"
    assert len(found.sample.score) == len(list(photos.rglob("*.png")))


def test_audit_on_foreign_labels_names_them(photos: Path, bundle: Path) -> None:
    (photos / "scratch").rename(photos / "dent")
    code, output = run("audit", bundle, photos)
    assert code == 3
    assert "does not know dent" in output


def test_pack_of_an_unzipped_bundle_gives_the_same_files(tmp_path: Path, bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "open")
    manifest = json.loads((tmp_path / "open" / "manifest.json").read_text())
    manifest["version"] = "1.2.3"
    (tmp_path / "open" / "manifest.json").write_text(json.dumps(manifest))
    code, output = run("pack", tmp_path / "open", "--out", tmp_path / "new.lsb")
    assert code == 0, output
    assert load(tmp_path / "new.lsb").ref.version == "1.2.3"
    assert load(tmp_path / "new.lsb").files == load(bundle).files


def test_pack_without_a_manifest_says_what_is_missing(tmp_path: Path) -> None:
    code, output = run("pack", tmp_path)
    assert code == 3
    assert "manifest.json" in output


def test_compare_marks_what_differs(tmp_path: Path, bundle: Path) -> None:
    other = tmp_path / "brightness-1.0.1.lsb"
    other.write_bytes(bundle_bytes("1.0.1", policy={"kind": "inspect", "pass_max": 0.1, "divert_min": 0.95}))
    code, output = run("compare", bundle, other, "--no-speed", "--json")
    assert code == 0, output
    rows = {row["what"]: (row["first"], row["second"]) for row in json.loads(output)}
    assert rows["threshold pass_max"] == ("0.05", "0.1")
    assert rows["bundle"] == ("brightness 1.0.0", "brightness 1.0.1")


def test_inspect_draws_a_page(tmp_path: Path, bundle: Path) -> None:
    code, output = run("inspect", bundle, "--html", tmp_path / "page.html")
    assert code == 0, output
    assert "p50 ms" in (tmp_path / "page.html").read_text()


def test_sign_and_check_as_typed(tmp_path: Path, bundle: Path) -> None:
    assert run("keys", "make", tmp_path / "keys")[0] == 0
    assert run("sign", bundle, "--key", tmp_path / "keys" / "release.pem")[0] == 0
    code, output = run("sign", bundle, "--check", "--public", tmp_path / "keys" / "release.pub.pem", "--json")
    assert code == 0
    assert json.loads(output)["trusted"] is True


def test_sign_without_key_or_check_is_a_wrong_argument(bundle: Path) -> None:
    assert run("sign", bundle)[0] == 2


def test_runs_of_an_empty_folder_say_how_to_make_one(tmp_path: Path) -> None:
    code, output = run("runs", "list", "--out", tmp_path)
    assert code == 0
    assert "lineside-export fit" in output
