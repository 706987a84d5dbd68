"""`lineside-cloud models` against a control plane that runs: what people see and what stands in the audit log."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cloud import tables
from cloud.__main__ import app
from tests.bundles import bundle_bytes
from tests.cloud.publishing import publish
from tests.cloud.serving import serving
from tests.cloud.world import World

AUDIT = {"passed": True, "limits": [{"limit": "recall of scratch: at least 0.9", "passed": True, "value": 0.93}]}


@pytest.fixture
def server(registry_world: World) -> Iterator[str]:
    """The address of a control plane with two versions of a model, the newer one audited."""
    publish(registry_world, bundle_bytes("1.0.0", metrics={"by_class": {"scratch": 0.91}}))
    audited: dict[str, Any] = {
        "audit": AUDIT,
        "lineage": {"code": "abc123"},
        "metrics": {"by_class": {"scratch": 0.93}},
    }
    publish(registry_world, bundle_bytes("1.1.0", **audited))
    with serving(registry_world.services) as client:
        yield str(client.base_url)


def models(server: str, *arguments: str) -> Result:
    """Run a command."""
    return CliRunner().invoke(app, ["models", *arguments, "--server", server])


def test_list_and_show_tell_state_audit_and_lineage(server: str) -> None:
    listed = {one["version"]: one for one in json.loads(models(server, "list", "--json").stdout)}
    assert {version: (one["state"], one["audit"]) for version, one in listed.items()} == {
        "1.0.0": ("candidate", "none"), "1.1.0": ("audited", "passed"),
    }  # fmt: skip
    shown = models(server, "show", "brightness", "1.1.0").stdout
    for words in ("1.1.0: audited; its audit passed", "abc123", "by_class.scratch", "0.93"):
        assert words in shown
    assert json.loads(models(server, "show", "brightness", "1.1.0", "--json").stdout)["manifest"]["audit"] == AUDIT
    assert models(server, "show", "brightness", "9.9.9").exit_code == 4


def test_compare_shows_what_differs_and_all_of_it_as_json(server: str) -> None:
    shown = models(server, "compare", "brightness", "1.0.0", "1.1.0").stdout
    assert "by_class.scratch" in shown and "+0.02" in shown and "prefers" not in shown
    assert "prefers" in models(server, "compare", "brightness", "1.0.0", "1.1.0", "--all").stdout
    found = json.loads(models(server, "compare", "brightness", "1.0.0", "1.1.0", "--json").stdout)
    rows = {row["what"]: row for section in found["sections"] for row in section["rows"]}
    assert rows["by_class.scratch"]["difference"] == 0.02
    assert (found["first"]["version"], found["second"]["version"]) == ("1.0.0", "1.1.0")


def test_approve_and_retire_need_a_reason_and_put_it_on_record(server: str, registry_world: World) -> None:
    assert models(server, "approve", "brightness", "1.1.0").exit_code == 2
    refused = models(server, "approve", "brightness", "1.0.0", "--reason", "old and proven")
    assert (refused.exit_code, "has no audit report" in refused.stderr) == (4, True)
    assert "is approved" in models(server, "approve", "brightness", "1.1.0", "--reason", "a month at hall 2").stderr
    made = models(server, "approve", "brightness", "1.1.0", "--reason", "for new boxes", "--default", "--json")
    assert json.loads(made.stdout)["is_default"]
    assert "is retired" in models(server, "retire", "brightness", "1.0.0", "--reason", "too blunt").stderr
    whys = [row.why for row in registry_world.rows(tables.audit_log) if row.what != "bundle_published"]
    assert whys == ["a month at hall 2", "for new boxes", "for new boxes", "too blunt"]


def test_gc_says_what_it_keeps_and_why_and_publishing_again_brings_a_file_back(
    server: str, registry_world: World, tmp_path: Path
) -> None:
    planned = models(server, "gc", "--dry-run", "--keep-last", "1")
    assert "would go" in planned.stdout and "among the last 1" in planned.stdout
    assert registry_world.services.registry.bundle("brightness", "1.0.0").has_file
    done = json.loads(models(server, "gc", "--keep-last", "1", "--reason", "full", "--json").stdout)
    assert [one["version"] for one in done["removed"]] == ["1.0.0"]
    assert "file removed" in models(server, "list").stdout
    (tmp_path / "b.lsb").write_bytes(bundle_bytes("1.0.0", metrics={"by_class": {"scratch": 0.91}}))
    keys = str(registry_world.release_key.parent)
    assert models(server, "publish", str(tmp_path / "b.lsb"), "--keys", keys).exit_code == 0
    assert registry_world.services.registry.bundle("brightness", "1.0.0").has_file
