"""Reading a bundle: whole and unaltered or refused in words, whatever was done to it on the way."""

import hashlib
import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.bundle import MAX_ARCHIVE_BYTES, MAX_MEMBERS, Bundle, digest_of, load, parse
from edge.engines import EngineSettings, open_engine
from edge.errors import DeadlineError, LinesideError, ModelError, UpdateError
from edge.steps import judge
from edge.values import StationSettings, Window
from edge.work import Work
from tests.bundles import SIDE, archive, bundle_bytes, logits

WHOLE = bundle_bytes()
SEED = 12


def members(data: bytes = WHOLE) -> dict[str, bytes]:
    """Return the files of a bundle."""
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def with_manifest(change: Any, extra: dict[str, bytes] | None = None) -> bytes:
    """Return the bundle with its manifest changed in place by `change`."""
    files = members() | (extra or {})
    manifest = json.loads(files["manifest.json"])
    change(manifest)
    return archive({**files, "manifest.json": json.dumps(manifest).encode()})


def with_file(name: str, content: bytes) -> bytes:
    """Return the bundle with another file in place of one of its own, listed as it is."""

    def relist(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = {"digest": digest_of(content), "size_bytes": len(content)}

    return with_manifest(relist, {name: content})


def npy(values: Any) -> bytes:
    """Return an array as a file."""
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def test_whole_bundle_gives_manifest_files_and_identity() -> None:
    got = parse(WHOLE, expected_digest=hashlib.sha256(WHOLE).hexdigest())
    assert (got.ref.name, got.ref.version, got.ref.size_bytes) == ("brightness", "1.0.0", len(WHOLE))
    assert got.ref.digest == hashlib.sha256(WHOLE).hexdigest()
    assert got.files == {name: data for name, data in members().items() if name != "manifest.json"}


def test_bundle_from_disk_is_the_bundle_from_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.lsb"
    path.write_bytes(WHOLE)
    assert load(path, expected_digest=digest_of(WHOLE)) == parse(WHOLE)


def test_model_and_golden_examples_are_given_per_runtime() -> None:
    got = parse(WHOLE)
    spec, model = got.model("onnx")
    assert spec.input.shape == [1, SIDE, SIDE, 3] and model == members()["model.onnx"]
    inputs, outputs = got.golden("onnx")
    assert inputs.dtype == np.uint8 and outputs.dtype == np.float32
    assert np.array_equal(outputs, logits(inputs.view(np.uint8)))


def test_runtime_that_the_bundle_has_not_is_a_model_error_that_names_those_it_has() -> None:
    with pytest.raises(ModelError, match="no tflite model") as caught:
        parse(WHOLE).model("tflite")
    assert caught.value.hint == "it has: onnx"
    with pytest.raises(ModelError, match="no golden outputs for tflite"):
        parse(WHOLE).golden("tflite")


def test_missing_file_is_a_model_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.lsb: cannot read the bundle: No such file"):
        load(tmp_path / "nowhere.lsb")
    with pytest.raises(ModelError, match="cannot read"):
        load(tmp_path)


def test_file_larger_than_any_bundle_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.lsb"
    with path.open("wb") as file:
        file.truncate(MAX_ARCHIVE_BYTES + 1)
    with pytest.raises(UpdateError, match="at most 268435456 bytes, got 268435457"):
        load(path)


def test_digest_is_compared_before_anything_is_parsed() -> None:
    with pytest.raises(UpdateError, match=r"digest is .* expected 000000000000"):
        parse(b"not even an archive", expected_digest="0" * 64)


@given(st.integers(0, len(WHOLE) - 1))
@settings(max_examples=150)
def test_bundle_cut_short_anywhere_is_refused_even_without_a_digest(cut: int) -> None:
    with pytest.raises(UpdateError):
        parse(WHOLE[:cut])


@given(st.data())
@settings(max_examples=300)
def test_altered_bytes_are_refused_or_change_nothing_that_counts(data: st.DataObject) -> None:
    altered = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        altered[data.draw(st.integers(0, len(WHOLE) - 1))] ^= data.draw(st.integers(1, 255))
    digest = digest_of(WHOLE)
    if bytes(altered) == WHOLE:
        return
    with pytest.raises(UpdateError, match="digest"):
        parse(bytes(altered), expected_digest=digest)
    got = _parsed_or_refused(bytes(altered))
    if got is not None:
        assert got.files == parse(WHOLE).files


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_in_compressed_members_is_refused_in_words(method: int) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as target:
        for name, content in members().items():
            target.writestr(name, content)
    whole = stream.getvalue()
    assert parse(whole).files == parse(WHOLE).files
    draw = random.Random(SEED)
    for _ in range(300):
        at = draw.randrange(len(whole))
        damaged = whole[:at] + bytes([whole[at] ^ (1 + draw.randrange(255))]) + whole[at + 1 :]
        got = _parsed_or_refused(damaged)
        assert got is None or got.files == parse(WHOLE).files, f"seed {SEED}, byte {at}"


def test_encrypted_members_are_refused_in_words() -> None:
    altered = bytearray(WHOLE)
    at = altered.index(b"PK\x01\x02")
    while at >= 0:
        altered[at + 8] |= 1
        at = altered.find(b"PK\x01\x02", at + 4)
    with pytest.raises(UpdateError, match=r"not a bundle: .*encrypted"):
        parse(bytes(altered))


@pytest.mark.parametrize("content", [b"", b"PK", b"hello" * 100, b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_refused(content: bytes) -> None:
    with pytest.raises(UpdateError, match=r"not a bundle|manifest\.json is missing"):
        parse(content)


def test_file_that_is_not_the_one_listed_is_refused() -> None:
    files = members()
    for changed in (files["model.onnx"] + b"x", files["model.onnx"][:-1], b"x" + files["model.onnx"][1:]):
        with pytest.raises(UpdateError, match=r"model\.onnx is not the file that the manifest lists"):
            parse(archive({**files, "model.onnx": changed}))


def test_files_swapped_between_two_bundles_are_refused() -> None:
    other = members(bundle_bytes("2.0.0", kind="inverted"))
    for name in ("model.onnx", "outputs.npy"):
        with pytest.raises(UpdateError, match="is not the file that the manifest lists"):
            parse(archive({**members(), name: other[name]}))


def test_missing_and_additional_files_are_refused() -> None:
    files = members()
    with pytest.raises(UpdateError, match=r"inputs\.npy"):
        parse(archive({name: data for name, data in files.items() if name != "inputs.npy"}))
    with pytest.raises(UpdateError, match=r"does not list: run_me\.sh"):
        parse(archive({**files, "run_me.sh": b"rm -rf /"}))
    with pytest.raises(UpdateError, match=r"manifest\.json is missing"):
        parse(archive({name: data for name, data in files.items() if name != "manifest.json"}))
    with pytest.raises(UpdateError, match=f"at most {MAX_MEMBERS} files"):
        parse(archive({**files, **{f"f{number}": b"" for number in range(MAX_MEMBERS)}}))


def test_name_given_twice_is_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, content in members().items():
            target.writestr(name, content)
        with pytest.warns(UserWarning, match="Duplicate"):
            target.writestr("model.onnx", members()["model.onnx"])
    with pytest.raises(UpdateError, match="repeated names"):
        parse(stream.getvalue())


@pytest.mark.parametrize("name", ["../evil.onnx", "/etc/passwd", "a/b.onnx", "", ".hidden", "x" * 101, "a\x00b"])
def test_file_names_that_lead_elsewhere_are_refused(name: str) -> None:
    def rename(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"].pop("model.onnx")
        manifest["models"]["onnx"]["file"] = name

    with pytest.raises(UpdateError, match="manifest: "):
        parse(with_manifest(rename))


def test_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = bytes(20 * 2**20)

    def list_many(manifest: dict[str, Any]) -> None:
        for number in range(20):
            manifest["files"][f"bomb{number}"] = {"digest": digest_of(bomb), "size_bytes": len(bomb)}

    files = members()
    manifest = json.loads(files["manifest.json"])
    list_many(manifest)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in {**files, "manifest.json": json.dumps(manifest).encode()}.items():
            target.writestr(name, content)
        for number in range(20):
            target.writestr(f"bomb{number}", bomb)
    with pytest.raises(UpdateError, match="at most 268435456 bytes unpacked"):
        parse(stream.getvalue())


def test_member_larger_than_listed_is_not_unpacked_further() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members().items():
            target.writestr(name, bytes(50 * 2**20) if name == "model.onnx" else content)
    with pytest.raises(UpdateError, match=r"model\.onnx is not the file"):
        parse(stream.getvalue())


def test_manifest_larger_than_any_real_one_is_refused_unread() -> None:
    with pytest.raises(UpdateError, match=r"manifest\.json is larger than"):
        parse(archive({**members(), "manifest.json": bytes(5 * 2**20)}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.pop("labels"), "manifest: labels: Field required"),
        (lambda m: m.update(version="1.0"), "manifest: version"),
        (lambda m: m.update(name="../x"), "manifest: name"),
        (lambda m: m.update(format=2), "manifest: format"),
        (lambda m: m.update(labels=["ok", "scratch"]), "must hold 'good'"),
        (lambda m: m.update(labels=["good", "good"]), "labels must differ"),
        (lambda m: m["policy"].update(pass_max=0.99), "must not be above"),
        (lambda m: m.update(labels=["good", "scratch", "dent"]), r"expected shape \[1, 3\], got \[1, 2\]"),
        (lambda m: m.update(calibration={"method": "vector"}), r"expected 2 scales and biases, got \[0, 0\]"),
        (
            lambda m: m.update(calibration={"method": "vector", "scale": [1, 1], "bias": [0]}),
            r"expected 2 scales and biases, got \[2, 1\]",
        ),
        (lambda m: m["files"]["model.onnx"].update(size_bytes=-1), "size_bytes"),
    ],
)
def test_manifest_that_does_not_hold_together_is_refused_with_the_field(change: Any, words: str) -> None:
    with pytest.raises(UpdateError, match=words):
        parse(with_manifest(change))


def test_unknown_fields_are_kept() -> None:
    got = parse(with_manifest(lambda manifest: manifest.update(colour_of_the_box="blue")))
    assert got.manifest.model_extra == {"colour_of_the_box": "blue"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("outputs.npy", npy(np.zeros((2, 2), np.float32)), "expected 3 with 2 logits each"),
        ("outputs.npy", npy(np.zeros((3, 5), np.float32)), "expected 3 with 2 logits each"),
        ("outputs.npy", npy(np.float32(1)), "expected 3 with 2 logits each"),
        ("outputs.npy", npy(np.full((3, 2), np.nan, np.float32)), "finite"),
        ("outputs.npy", npy(np.full((3, 2), "a")), "finite floating-point"),
        ("inputs.npy", npy(np.zeros((2, SIDE, SIDE, 3), np.uint8)), "expected 3"),
        ("inputs.npy", b"", "damaged"),
        ("inputs.npy", npy(np.zeros((3, SIDE, SIDE, 3), np.uint8))[:-5], "damaged"),
        ("inputs.npy", archive({"arr_0.npy": npy(np.zeros(3))}), "damaged"),
        ("inputs.npy", npy(np.array([{}, {}, {}], dtype=object)), "damaged"),
    ],
)
def test_golden_examples_that_prove_nothing_are_a_model_error(name: str, content: bytes, words: str) -> None:
    got = parse(with_file(name, content))
    with pytest.raises(ModelError, match=words):
        got.golden("onnx")


def test_array_header_that_claims_terabytes_is_a_model_error() -> None:
    real = npy(np.zeros((3, SIDE, SIDE, 3), np.uint8))
    old = b"(3, 16, 16, 3), }" + b" " * 20
    claimed = real.replace(old, b"(3, 99999, 99999, 9), }".ljust(len(old)))
    assert claimed != real and len(claimed) == len(real)
    with pytest.raises(ModelError, match="damaged"):
        parse(with_file("inputs.npy", claimed)).golden("onnx")


def _parsed_or_refused(data: bytes) -> Bundle | None:
    try:
        return parse(data)
    except LinesideError as error:
        assert isinstance(error, UpdateError) and str(error)
        return None


@pytest.mark.parametrize("name", ["sharpnes", "level_dbfs", "ood"])
def test_gate_limit_of_a_metric_that_no_device_measures_is_refused(name: str) -> None:
    with pytest.raises(UpdateError, match=f"gate limits {name}, which no device measures; it measures brightness"):
        parse(bundle_bytes(gate={name: {"min": 0.1}, "brightness": {"min": 0.1}}))


@pytest.mark.parametrize("tolerance", [float("inf"), float("nan"), 0.0])
def test_tolerance_that_any_answer_would_meet_is_refused(tolerance: float) -> None:
    def loosen(manifest: dict[str, Any]) -> None:
        manifest["models"]["onnx"]["golden_tolerance"] = tolerance

    with pytest.raises(UpdateError, match="golden_tolerance"):
        parse(with_manifest(loosen))


KINDS = {"scratch": {"pass_max": 0.02, "divert_min": 0.9}, "dent": {"pass_max": 0.1, "divert_min": 0.6}}


def of_several_kinds(**changes: Any) -> bytes:
    """Return a bundle for kinds of defect that may hold together."""
    values: dict[str, Any] = {
        "labels": list(KINDS),
        "policy": {"kind": "multilabel", "labels": KINDS},
        "calibration": {"method": "sigmoid"},
    }
    return bundle_bytes(**values | changes)


def test_bundle_of_several_kinds_judges_a_part_by_each() -> None:
    engine = open_engine(parse(of_several_kinds()), EngineSettings(isolation="inline"))
    verdicts = []
    for brightness in (250, 5, 128):
        data = np.full((SIDE, SIDE, 3), brightness, np.uint8)
        window = Window("test", "a.png", "a", "image/png", data, b"raw")
        got = judge(Work(window, StationSettings(station="press", deadline_ms=float("inf")), engine))
        verdicts.append((got.verdict, got.label))
    # Its two logits are each other's opposite: bright is the one kind, dark the other, between them neither is sure.
    assert verdicts == [("divert", "scratch"), ("divert", "dent"), ("defer", "scratch")]
    engine.session.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"calibration": {"method": "none"}}, "does not fit calibration"),
        ({"policy": {"kind": "inspect", "pass_max": 0.1, "divert_min": 0.9}}, "does not fit calibration"),
        ({"labels": ["good", "dent"]}, "expected thresholds for each label and no 'good'"),
        ({"calibration": {"method": "sigmoid", "scale": [1.0], "bias": [1.0]}}, "expected 2 scales and biases"),
        ({"task": "keyword"}, "does not fit task"),
        (
            {
                "labels": ["good", "scratch"],
                "calibration": {},
                "policy": {"kind": "inspect", "pass_max": 0.1, "divert_min": 0.9, "label_pass_max": {"crack": 0.01}},
            },
            "thresholds for crack, which the bundle has no label for",
        ),
    ],
)
def test_policy_that_does_not_fit_the_bundle_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UpdateError, match=words):
        parse(of_several_kinds(**changes))


GLASS = Path(__file__).parents[2] / "models" / "phone_glass" / "phone_glass-1.0.0.lsb"


def with_onnx_that_computes_otherwise() -> bytes:
    """Return a bundle of two formats as it is on a processor that its ONNX file was not made for."""
    with zipfile.ZipFile(GLASS) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    manifest = json.loads(members["manifest.json"])
    name = manifest["golden"]["outputs"]["onnx"]
    stream = io.BytesIO()
    np.save(stream, np.load(io.BytesIO(members[name])) + 10)
    members[name] = stream.getvalue()
    manifest["files"][name] = {
        "digest": hashlib.sha256(members[name]).hexdigest(),
        "size_bytes": len(members[name]),
    }
    return archive({**members, "manifest.json": json.dumps(manifest).encode()})


def test_format_that_computes_otherwise_here_gives_way_to_another_of_the_bundle_in_words() -> None:
    bundle = parse(with_onnx_that_computes_otherwise())
    engine = open_engine(bundle, EngineSettings(isolation="inline"))
    assert engine.session.description.startswith("ai-edge-litert")
    assert engine.note.startswith("onnx is preferred but refused here (phone_glass 1.0.0: golden ")
    assert engine.note.endswith("running tflite")


def test_format_that_the_station_asks_for_gives_way_to_no_other() -> None:
    with pytest.raises(UpdateError, match=r"golden .* differ"):
        open_engine(parse(with_onnx_that_computes_otherwise()), EngineSettings(runtime="onnx", isolation="inline"))


def test_network_that_is_not_loaded_within_the_stations_time_is_given_up() -> None:
    with pytest.raises(DeadlineError, match="did not load the model within"):
        open_engine(parse(bundle_bytes()), EngineSettings(runtime="onnx", load_s=0.001))
