"""The benchmark of the way back: real broker, ingest and conductor, simulated devices."""

import json

import pytest

from benchmarks import rollback


def test_devices_switch_together_and_are_back_without_a_download(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rollback.main(as_json=True, devices=12)

    assert 0 <= row["switch_spread_s"] <= row["last_back_s"]
    assert row["decided_s"] <= row["last_back_s"] + 1.0
    assert row["downloads_to_go_back"] == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["devices"] == 12
