"""Settings for several copies: what would lose or hide things is refused before anything runs."""

from pathlib import Path

import pytest

from cloud.config import BrokerConfig
from cloud.errors import ConfigError
from cloud.link import subscription
from tests.cloud.world import World


def test_copies_subscribe_as_a_group_and_a_single_one_plainly() -> None:
    assert subscription("up", "ingest") == "$share/ingest/lineside/1/+/up"
    assert subscription("up", "") == "lineside/1/+/up"


@pytest.mark.parametrize(
    ("broker", "reason"),
    [
        (BrokerConfig(share="ingest"), "one external broker"),
        (BrokerConfig(kind="external", share="ingest"), "one PostgreSQL"),
    ],
)
def test_copies_without_a_common_broker_or_database_are_refused(
    tmp_path: Path, broker: BrokerConfig, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        World(tmp_path, broker=broker)
