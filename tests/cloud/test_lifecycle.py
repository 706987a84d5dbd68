"""States of a version, and that nothing goes out without an audit or a reason on record."""

import io
import itertools
from typing import Any, get_args

import pytest
from sqlalchemy import select

from cloud import lifecycle, tables
from cloud.errors import ConflictError
from cloud.plans import parse_plan
from cloud.rollout_book import RolloutBook
from cloud.server import build
from tests.bundles import bundle_bytes
from tests.cloud.publishing import publish, signed
from tests.cloud.world import World

PASSED = {"passed": True, "limits": [], "not_tested": [], "examples": 100, "groups": 50, "judged_by": "a test"}
FAILED = {**PASSED, "passed": False}


@pytest.mark.parametrize(
    ("audit", "answer", "state"),
    [
        (PASSED, "passed", "audited"),
        (FAILED, "failed", "candidate"),
        ({**PASSED, "passed": None}, "no_limits", "candidate"),
        ({"passed": "true"}, "no_limits", "candidate"),
        ({"golden": "8 of 8"}, "no_limits", "candidate"),
        ({}, "none", "candidate"),
    ],
)
def test_first_state_follows_from_the_audit_in_the_manifest(audit: dict[str, Any], answer: str, state: str) -> None:
    assert lifecycle.audit_of({"audit": audit}) == answer
    assert lifecycle.first_state({"audit": audit}) == state


def test_table_has_no_way_out_of_retired_and_none_to_approved_but_by_audit_or_reason() -> None:
    for event, state in itertools.product(get_args(lifecycle.Event), get_args(lifecycle.State)):
        after = lifecycle.after(event, state)
        assert state != "retired" or after is None
        assert after != "approved" or event == "overridden" or state in ("audited", "approved")
        assert after != "retired" or event == "retired"


def test_only_a_passed_audit_or_a_reason_lets_a_version_out() -> None:
    assert lifecycle.why_not_rolled_out("audited", "passed", unaudited="") == ""
    assert lifecycle.why_not_rolled_out("approved", "none", unaudited="") == ""
    assert lifecycle.why_not_rolled_out("candidate", "failed", unaudited="") == "its audit failed"
    assert lifecycle.why_not_rolled_out("candidate", "none", unaudited="  ") == "it has no audit report"
    assert lifecycle.why_not_rolled_out("candidate", "failed", unaudited="a trial at hall 2") == ""
    assert lifecycle.why_not_rolled_out("retired", "passed", unaudited="please") == "it was retired"


def test_rollout_of_an_audited_version_starts_and_of_another_only_with_a_reason_on_record(
    registry_world: World,
) -> None:
    registry_world.enrol("box-1")
    publish(registry_world, bundle_bytes("1.0.0", audit=PASSED))
    ref = publish(registry_world, bundle_bytes("1.1.0", audit=FAILED))
    book = RolloutBook.of(registry_world.services)
    with pytest.raises(ConflictError, match="its audit failed") as caught:
        _start(book, "1.1.0")
    assert "--unaudited" in caught.value.hint
    started = _start(book, "1.1.0", unaudited="only box-1, and a person looks at every part")
    (row,) = _log(registry_world, "bundle_rolled_out_unaudited")
    assert (row.who, row.why) == ("ann", "only box-1, and a person looks at every part")
    assert (row.data["digest"], row.data["audit"]) == (ref["digest"], "failed")
    book.abort(started, who="ann", why="enough")
    assert _start(book, "1.0.0")
    assert len(_log(registry_world, "bundle_rolled_out_unaudited")) == 1


def test_retired_version_is_not_rolled_out_and_does_not_come_back(registry_world: World) -> None:
    registry_world.enrol("box-1")
    registry = registry_world.services.registry
    publish(registry_world, bundle_bytes("1.0.0", audit=PASSED))
    assert registry.retire("brightness", "1.0.0", who="ben", why="trained on broken labels").state == "retired"
    (row,) = _log(registry_world, "bundle_retired")
    assert (row.who, row.why, row.before, row.after) == (
        "ben", "trained on broken labels", {"state": "audited"}, {"state": "retired"},
    )  # fmt: skip
    with pytest.raises(ConflictError, match="was retired"):
        _start(RolloutBook.of(registry_world.services), "1.0.0", unaudited="but I want to")
    for attempt in (registry.approve, registry.retire, registry.set_default):
        with pytest.raises(ConflictError, match="is retired"):
            attempt("brightness", "1.0.0", who="ben", why="again")


def test_default_and_what_is_being_rolled_out_are_not_retired(registry_world: World) -> None:
    registry_world.enrol("box-1")
    registry = registry_world.services.registry
    publish(registry_world, bundle_bytes("1.0.0"), default=True)
    publish(registry_world, bundle_bytes("1.1.0", audit=PASSED))
    rollout = _start(RolloutBook.of(registry_world.services), "1.1.0")
    with pytest.raises(ConflictError, match="is the default"):
        registry.retire("brightness", "1.0.0", who="ben", why="old")
    with pytest.raises(ConflictError, match=f"rolled out by {rollout}"):
        registry.retire("brightness", "1.1.0", who="ben", why="new")


def test_default_needs_an_audit_or_a_reason_and_nothing_is_published_without(registry_world: World) -> None:
    registry = registry_world.services.registry
    data = bundle_bytes("1.0.0")
    with pytest.raises(ConflictError, match="has no audit report"):
        registry.publish(io.BytesIO(data), signed(registry_world, data), who="ann", default=True)
    assert registry.bundles() == []
    publish(registry_world, data)
    with pytest.raises(ConflictError, match="cannot be approved: it has no audit report"):
        registry.approve("brightness", "1.0.0", who="ann", why="looks good")
    approved = registry.approve("brightness", "1.0.0", who="ann", why="looks good", unaudited="no data yet")
    assert (approved.state, approved.is_default) == ("approved", False)
    assert [row.why for row in _log(registry_world, "bundle_approved")] == ["looks good; unaudited: no data yet"]


def test_version_of_a_release_without_audits_is_brought_to_its_state_at_start(registry_world: World) -> None:
    publish(registry_world, bundle_bytes("1.0.0", audit=PASSED))
    with registry_world.services.store.write() as connection:
        connection.execute(tables.bundles.update().values(state="candidate"))
    again = build(registry_world.config, registry_world.clock).services
    assert again.registry.open()
    assert again.registry.bundle("brightness", "1.0.0").state == "audited"
    again.store.close()


def _start(book: RolloutBook, version: str, *, unaudited: str = "") -> str:
    shape = parse_plan('[[stages]]\nkind = "ramp"\nshare = 1.0\n')
    return book.start("brightness", version, shape, who="ann", why="a test", unaudited=unaudited).id


def _log(world: World, what: str) -> list[Any]:
    with world.services.store.read() as connection:
        return list(connection.execute(select(tables.audit_log).where(tables.audit_log.c.what == what)))
