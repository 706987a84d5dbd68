"""The benchmark of a whole rollout: it ends as it should, and no promise is broken on the way."""

import json

import pytest

from benchmarks import rollout


def test_a_good_version_reaches_a_simulated_fleet_and_a_bad_one_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    rows = rollout.main(as_json=True, devices=400)
    ended = {row["world"]: (row["ended"], row["running_new"]) for row in rows}
    assert ended["good version"] == ("done", 400)
    assert ended["bad version"] == ("rolled_back", 0)
    assert ended["blue/green"][0] == "done"
    assert next(row["most_on_candidate"] for row in rows if row["world"] == "bad version") == 40
    assert [json.loads(line)["world"] for line in capsys.readouterr().out.splitlines()] == [r["world"] for r in rows]
