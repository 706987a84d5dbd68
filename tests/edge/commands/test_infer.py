"""`lineside-edge infer`: files, folders, patterns; lines for people and for machines; what cannot be read."""

import json
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.bundles import bundle_bytes
from tests.edge.command import edge


def picture(path: Path, brightness: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((32, 32, 3), brightness, np.uint8))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "glass.lsb").write_bytes(bundle_bytes())
    picture(tmp_path / "parts" / "part2.png", 250)
    picture(tmp_path / "parts" / "part10.png", 5)
    picture(tmp_path / "parts" / "deep" / "part1.png", 128)
    (tmp_path / "parts" / "notes.txt").write_text("not a picture")
    return tmp_path


def records(result: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_folder_is_judged_in_natural_order(folder: Path) -> None:
    result = edge("infer", "glass.lsb", "parts", "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert [Path(r["path"]).name for r in records(result)] == ["part1.png", "part2.png", "part10.png"]
    assert [r["verdict"] for r in records(result)] == ["defer", "pass", "divert"]


def test_json_holds_what_machines_ask_for(folder: Path) -> None:
    (record,) = records(edge("infer", "glass.lsb", "parts/part2.png", "--json", cwd=folder))
    assert {"path", "verdict", "label", "confidence", "reason", "scores", "latency_ms", "bundle"} <= set(record)
    assert record["label"] == "good"
    assert set(record["scores"]) == {"good", "scratch"}
    assert sum(record["scores"].values()) == pytest.approx(1)
    assert len(record["bundle"]) == 64


def test_lines_for_people_end_with_a_summary(folder: Path) -> None:
    result = edge("infer", "glass.lsb", "parts/*.png", cwd=folder)
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("pass") and "parts/part2.png" in lines[0]
    assert lines[-1].startswith("2 files: 1 pass, 1 divert")


def test_unreadable_files_are_named_and_counted_and_the_others_done(folder: Path) -> None:
    (folder / "parts" / "part3.jpg").write_bytes(b"not a picture at all")
    (folder / "parts" / "part4.png").write_bytes(b"")
    result = edge("infer", "glass.lsb", "parts", "gone.png", "--json", cwd=folder)
    assert result.returncode == 3
    found = {Path(r["path"]).name: r for r in records(result)}
    assert [name for name, r in found.items() if r["reason"] == "bad_input"] == ["part3.jpg", "part4.png", "gone.png"]
    assert found["part10.png"]["verdict"] == "divert"
    assert "3 unreadable" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing.lsb", "parts"), "cannot read the bundle"),
        (("parts/notes.txt", "parts"), "not a bundle"),
        (("glass.lsb", "nowhere/*.png"), "nothing matches"),
        (("glass.lsb", "parts", "--runtime", "magic"), "expected auto, onnx, tflite"),
        (("glass.lsb", "parts", "--runtime", "tflite"), "has no tflite model"),
    ],
    ids=["no bundle", "not a bundle", "no match", "unknown runtime", "missing format"],
)
def test_wrong_use_is_told_in_words_with_exit_code_2(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    result = edge("infer", *arguments, cwd=folder)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_altered_bundle_is_refused(folder: Path) -> None:
    data = bytearray(bundle_bytes())
    data[len(data) // 2] ^= 0xFF
    (folder / "glass.lsb").write_bytes(bytes(data))
    result = edge("infer", "glass.lsb", "parts", cwd=folder)
    assert result.returncode == 2
    assert "is not the file that the manifest lists" in result.stderr or "not a bundle" in result.stderr
