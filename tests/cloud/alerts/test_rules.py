"""The file of what is watched: every mistake at once, the sample as the reference."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloud.__main__ import app
from cloud.alerts import rules
from cloud.errors import ConfigError

WRONG = """
colour = "red"
[[rule]]
name = "slow"
kind = "threshold"
metric = "latency_ms.total"
of = "p95"
above = 100
clear = 200
[[rule]]
name = "odd"
kind = "threshhold"
[[rule]]
name = "stale"
kind = "stale"
older_than = 3
older_than_s = -1
[[channel]]
name = "mail"
kind = "email"
host = "localhost"
sender = "a@b"
recipients = []
[[retrain]]
model = "glass"
"""


def test_every_mistake_is_named_at_once_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "watch.toml"
    file.write_text(WRONG)
    with pytest.raises(ConfigError) as caught:
        rules.load(file)
    said = str(caught.value)
    for words in (
        "7 mistakes",
        "colour: not known",
        "rule 1 (slow): Value error, clear 200 must not be above 100",
        "rule 2 (odd)",
        "rule 3 (stale): older_than: Extra inputs",
        "rule 3 (stale): older_than_s: Input should be greater than 0",
        "channel 1 (mail): recipients",
        "retrain 1 (glass): Value error, one of command and url",
    ):
        assert words in said


def test_names_that_cross_are_named_as_well(tmp_path: Path) -> None:
    file = tmp_path / "watch.toml"
    rule = '[[rule]]\nname = "a"\nkind = "drift"\nto = ["nobody"]\n'
    file.write_text(rule + rule)
    with pytest.raises(ConfigError) as caught:
        rules.load(file)
    assert "rule 'a': given twice" in str(caught.value)
    assert str(caught.value).count("no channel is called 'nobody'") == 2


def test_built_in_rules_are_read_and_cover_every_kind() -> None:
    built_in = rules.load(None)
    kinds = {rule.kind for rule in built_in.rule}
    assert kinds == {"stale", "absence", "drift", "rollback", "review_queue", "agreement", "threshold"}
    assert (len(built_in.channel), len(built_in.retrain)) == (0, 0)


def test_what_the_sample_shows_in_comments_is_right(tmp_path: Path) -> None:
    lines = rules.BUILT_IN.read_text().splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("# [[")]
    shown = []
    for start in starts:
        for line in lines[start:]:
            if not line.startswith("#"):
                break
            shown.append(line.removeprefix("# "))
    file = tmp_path / "watch.toml"
    file.write_text("\n".join(shown))
    found = rules.load(file)
    assert (len(found.channel), len(found.retrain)) == (2, 1)
    assert found.channel[0].model_dump()["password_file"] == tmp_path / "mail-password"


def test_command_checks_a_file(tmp_path: Path) -> None:
    run = CliRunner()
    good = run.invoke(app, ["alerts", "check", str(rules.BUILT_IN)])
    assert "7 rules, 0 channels" in good.output
    (tmp_path / "bad.toml").write_text(WRONG)
    assert run.invoke(app, ["alerts", "check", str(tmp_path / "bad.toml")]).exit_code == 2
    assert run.invoke(app, ["alerts", "check", str(tmp_path / "none.toml")]).exit_code == 2
