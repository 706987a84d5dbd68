"""The tables in the contract's docstrings against the classes, the topics and the routes."""

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Match

import edge.wire
from cloud.app import create_app
from cloud.clock import SystemClock
from cloud.config import CloudConfig, StoreConfig
from cloud.server import build
from edge.wire import http
from edge.wire.messages import MESSAGES
from edge.wire.rows import ROWS
from edge.wire.topics import CHANNELS, FROM_DEVICE, TO_DEVICE, every_device, parse, topic


def _tables(text: str | None) -> list[list[list[str]]]:
    """Return the Markdown tables of a text as lists of rows of cells, without their heads."""
    assert text is not None
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [
        [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]]
        for block in blocks
    ]


def _kinds(models: tuple[type, ...]) -> list[str]:
    return [model.model_fields["kind"].default for model in models]  # type: ignore[attr-defined]


def test_table_of_messages_lists_the_classes_in_order() -> None:
    assert [row[0] for row in _tables(edge.wire.__doc__)[0]] == _kinds(MESSAGES)


def test_table_of_rows_lists_the_classes_in_order() -> None:
    assert [row[0] for row in _tables(edge.wire.__doc__)[1]] == _kinds(ROWS)


def test_table_states_direction_topic_and_service_of_every_channel() -> None:
    rows = _tables(edge.wire.__doc__)[0]
    assert sorted(row[2] for row in rows) == sorted(CHANNELS)
    for kind, direction, channel, qos, retained, answered in rows:
        assert kind == channel
        assert channel in (FROM_DEVICE if direction == "device → cloud" else TO_DEVICE)
        assert qos == "1"
        assert retained == ("yes" if channel in ("desired", "reported", "presence") else "no")
        assert answered


@pytest.mark.parametrize("channel", CHANNELS)
def test_topic_taken_apart_gives_what_it_was_made_of(channel: str) -> None:
    assert parse(topic("box-1", channel)) == ("box-1", channel)  # type: ignore[arg-type]
    assert every_device(channel) == f"lineside/1/+/{channel}"  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "+", "#", "a/b", "a.b", "A", "a b", "-a", "a-", "a" * 64, "box-1\n", "box\u00e9"])
def test_name_that_a_broker_would_misread_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="device name"):
        topic(name, "up")
    with pytest.raises(ValueError, match="topic"):
        parse(f"lineside/1/{name}/up")


@pytest.mark.parametrize("name", ["lineside/2/box-1/up", "lineside/1/box-1/other", "lineside/1/box-1", "x"])
def test_topic_of_another_contract_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="topic"):
        parse(name)


def test_calls_of_the_http_table_are_routes(tmp_path: Path) -> None:
    config = CloudConfig(store=StoreConfig(data_dir=tmp_path))
    services = build(config, SystemClock()).services
    routes = create_app(services).routes
    calls = [re.match(r"(\w+) ([^`\s]+)", row[1]) for row in _tables(http.__doc__)[0]]
    assert len(calls) == 8
    for call in calls:
        assert call is not None
        path = re.sub(r"\{(\w+)\}", r"\1", call[2])
        scope: dict[str, Any] = {"type": "http", "method": call[1], "path": path, "headers": []}
        assert any(route.matches(scope)[0] is Match.FULL for route in routes), call[0]
    services.store.close()
