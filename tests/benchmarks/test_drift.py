"""The benchmark of the drift watch says what it is there to say."""

import json

import pytest

from benchmarks import drift


def test_drift_watch_keeps_its_stated_rate_and_sees_a_shift(capsys: pytest.CaptureFixture[str]) -> None:
    rows = drift.main(as_json=True, stations=30, hours=150)
    for row in rows:
        if row["stated"]:
            expected = (
                "NO" if "10 in a row the same, repeat = 1" in row["world"] and row["world"].endswith("= 1") else "yes"
            )
            assert row["kept"] == expected, row
    found = {row["world"]: row for row in rows}
    assert found["shift of 1 standard deviations, found within 48 h"]["hours_to_alarm"] == 2
    assert found["shift of 0.5 standard deviations, found within 48 h"]["found"] > 0.2
    assert len(capsys.readouterr().out.splitlines()) == len(rows)
    json.dumps(rows)
