"""The bench of the fleet, in short: what it counts is in the database, and nothing is lost."""

import os

import pytest

from benchmarks import fleet
from benchmarks.servers import NotInstalledError

LONG = "LINESIDE_LONG" in os.environ
"""With PostgreSQL and Mosquitto too: a minute more."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("database", "broker"), [(None, "embedded"), *([(fleet.PRIVATE, "mosquitto")] if LONG else [])]
)
def test_small_fleet_loses_nothing_and_says_what_it_costs(database: str | None, broker: str) -> None:
    question = fleet.Question(devices=30, seconds=2, database=database, broker=broker, telemetry_every_s=2)
    try:
        steady, decisions, telemetry, *keeping = fleet.main(question)
    except NotInstalledError as error:
        pytest.skip(str(error))
    for row in (steady, decisions, telemetry):
        assert (row["lost"], row["waiting"]) == (0, 0)
        assert row["rows_made"] > 0
        assert 0 < row["cloud_rss_mb"] < 400
    assert steady["devices"] == 30
    assert [row["rows_per_message"] for row in keeping] == [1, 50, 1, 10]
    assert all(row["cpu_us_per_row"] > 0 for row in keeping)
    assert decisions["cloud_us_per_row"] > 0
    assert telemetry["metrics_per_s"] >= telemetry["rows_per_s"]
