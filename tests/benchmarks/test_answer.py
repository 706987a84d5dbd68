"""The benchmark of answers measures both ways on every segment, with what each part takes of it."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import answer
from edge.errors import ConfigError
from tests.edge.sources.test_audio_file import put, tone


def test_every_segment_has_a_time_on_the_device_and_from_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        put(tmp_path / f"{number}.wav", tone(0.5, 300 + 100 * number))
    setting = answer.Setting(tmp_path, segmenter="energy", hang_over_ms=200, utterances=2)
    rows = answer.main(setting, as_json=True)
    assert {row["segments"] for row in rows} == {2}
    device, hang_over, lag, server, *_ = (row["p50"] for row in rows)
    assert abs(lag) < 50, "a loud tone ends when it ends"
    assert 150 < hang_over < device < server < 5000
    assert len(capsys.readouterr().out.splitlines()) == len(rows)
    assert np.isfinite([row["p95"] for row in rows]).all()


def test_folder_without_recordings_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected WAV files"):
        answer.main(answer.Setting(tmp_path))
