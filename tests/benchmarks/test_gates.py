"""The benchmark of the gates says what it is there to say."""

import json

import pytest

from benchmarks import gates


def test_gates_keep_their_promise_where_the_usual_rules_break_it(capsys: pytest.CaptureFixture[str]) -> None:
    rows = gates.main(as_json=True, runs=200, windows=150)
    found = {(row["rule"], row["world"]): row for row in rows}
    for (rule, world), row in found.items():
        if world != "escapes × 2":
            keeps = ("gate" in rule and "unweighted" not in rule) or "one look" in rule
            assert row["kept"] == ("yes" if keeps else "NO"), (rule, world, row)
    assert found["gate, 0 points", "escapes × 2"]["taken_back"] > 0.3
    assert found["z-test, one look as planned", "escapes × 2"]["taken_back"] == pytest.approx(0.8, abs=0.1)
    assert [json.loads(line)["rule"] for line in capsys.readouterr().out.splitlines()] == [r["rule"] for r in rows]
