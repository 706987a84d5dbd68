"""Synthesised speech: reproducible, offline, of many voices, with the truth beside it."""

import csv
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.errors import ConfigError
from models.spoken_digits.speak import FILE_RATE_HZ, LANGUAGES, VARIANTS, Synthesiser, Utterance, speak


def test_command_writes_sound_files_and_the_truth(tmp_path: Path) -> None:
    assert "20 digits" in _command(tmp_path, count=20, seed=4)
    rows = list(csv.DictReader((tmp_path / "truth.csv").open()))
    assert sorted(row["label"] for row in rows) == sorted("0123456789" * 2)
    assert len({row["voice"] for row in rows}) > 10
    for row in rows:
        assert row["path"].startswith(row["label"] + "_")
        rate_hz, samples = _read(tmp_path / row["path"])
        assert rate_hz == FILE_RATE_HZ
        assert 0.1 * rate_hz < len(samples) < 3 * rate_hz
        assert np.abs(samples).max() > 0.1


def test_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        _command(tmp_path / folder, count=10, seed=6)
    first, second = (sorted((tmp_path / folder).glob("*.wav")) for folder in ("first", "second"))
    assert [path.name for path in first] == [path.name for path in second]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))


def test_another_seed_says_it_otherwise(tmp_path: Path) -> None:
    for seed in (1, 2):
        speak(tmp_path / str(seed), count=10, seed=seed)
    assert {p.name for p in (tmp_path / "1").glob("*.wav")} != {p.name for p in (tmp_path / "2").glob("*.wav")}


def test_every_voice_speaks_and_variants_differ() -> None:
    with Synthesiser() as synthesiser:
        plain = synthesiser.say(Utterance(7, "en", 160, 50, 50))
        for variant in VARIANTS[1:]:
            sound = synthesiser.say(Utterance(7, f"en+{variant}", 160, 50, 50))
            assert len(sound) > 0.15 * synthesiser.rate_hz, variant
            assert len(sound) != len(plain) or not np.array_equal(sound, plain), variant
        for language in LANGUAGES:
            assert len(synthesiser.say(Utterance(3, language, 160, 50, 50))) > 0.1 * synthesiser.rate_hz, language


def test_voice_that_is_not_there_is_refused() -> None:
    with Synthesiser() as synthesiser, pytest.raises(ConfigError, match="no voice"):
        synthesiser.say(Utterance(1, "no-such-tongue", 160, 50, 50))


def test_count_out_of_bounds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected 1 to"):
        speak(tmp_path, count=0, seed=1)


def test_speaking_needs_no_training_library() -> None:
    code = "import sys, models.spoken_digits.speak; sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def _command(out: Path, *, count: int, seed: int) -> str:
    numbers = ["--count", str(count), "--seed", str(seed)]
    command = [sys.executable, "-m", "models.spoken_digits.speak", "--out", str(out), *numbers]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def _read(path: Path) -> tuple[int, NDArray[np.float32]]:
    with wave.open(str(path), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / np.float32(32768)
        return file.getframerate(), samples
