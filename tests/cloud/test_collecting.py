"""Which files go: rules over random histories, and on a real store with real files."""

import io
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from cloud import tables
from cloud.errors import ConflictError, InvalidError
from cloud.retention import Held, needs, verdicts
from edge.wire.messages import SlotReport, StationReport
from tests.bundles import bundle_bytes
from tests.cloud.publishing import digest_of, publish
from tests.cloud.world import World, incoming, reported

STATES = ("candidate", "audited", "approved", "retired")


def test_nothing_that_is_needed_goes_whatever_has_happened() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    gone = 0
    for _ in range(300):
        held = _held(rng)
        known = [one.digest for one in held]
        reports, running = _reports(rng, known)
        desired: dict[str, Any] = {
            f"d{n}": {"bundles": {"m": {"active": {"digest": rng.choice(known)}}}} for n in range(rng.randrange(3))
        }
        rollouts = {f"r{n}": _open_rollout(rng, known) for n in range(rng.randrange(3))}
        keep_last = rng.randrange(1, 4)
        found = verdicts(held, needs(reports, desired, rollouts), keep_last=keep_last)
        assert {one.held.digest for one in found} == set(known)
        removed = {one.held.digest for one in found if not one.kept_for}
        named = running | {d["bundles"]["m"]["active"]["digest"] for d in desired.values()}
        named |= {r[0]["digest"] for r in rollouts.values()}
        named |= {r[1]["arms"][0]["previous"]["digest"] for r in rollouts.values()}
        assert not removed & named
        for one in held:
            newer = sum(_key(other) > _key(one) for other in held if other.name == one.name)
            if one.is_default or one.state == "approved" or newer < keep_last:
                assert one.digest not in removed
            elif one.digest not in named:
                assert one.digest in removed, "what nobody needs goes"
        gone += len(removed)
    assert gone > 300


def test_file_that_nobody_needs_goes_with_a_row_in_the_audit_log_and_comes_back_by_the_same_file(
    registry_world: World,
) -> None:
    services = registry_world.services
    data = {version: bundle_bytes(version) for version in ("1.0.0", "1.1.0", "1.2.0", "1.3.0")}
    refs = {version: publish(registry_world, content) for version, content in data.items()}
    registry_world.enrol("box-1")
    _report(registry_world, SlotReport.model_validate({"bundle": refs["1.1.0"], "state": "good", "since_ms": 1}))
    planned = services.collector.collect(who="ann", dry_run=True, keep_last=1)
    assert [one.held.version for one in planned.removed] == ["1.2.0", "1.0.0"]
    assert all(services.registry.blobs.has(ref["digest"]) for ref in refs.values())
    done = services.collector.collect(who="ann", why="the disk", keep_last=1)
    assert {one.held.version: one.kept_for for one in done.kept} == {
        "1.3.0": "it is among the last 1", "1.1.0": "box-1 has it",
    }  # fmt: skip
    assert not services.registry.blobs.has(refs["1.0.0"]["digest"])
    removed = [row for row in registry_world.rows(tables.audit_log) if row.what == "bundle_file_removed"]
    assert [(row.who, row.why, row.data["version"]) for row in removed] == [
        ("ann", "the disk", "1.2.0"), ("ann", "the disk", "1.0.0"),
    ]  # fmt: skip
    assert not services.registry.bundle("brightness", "1.0.0").has_file
    with pytest.raises(ConflictError, match="was removed"):
        services.registry.set_default("brightness", "1.0.0", who="ann", unaudited="a test")
    with pytest.raises(InvalidError, match="expected bytes with digest"):
        services.registry.put_back(io.BytesIO(data["1.2.0"]), "brightness", "1.0.0", who="ann")
    back = services.registry.put_back(io.BytesIO(data["1.0.0"]), "brightness", "1.0.0", who="ann")
    assert back.has_file


def test_default_desired_and_rolled_out_files_stay(registry_world: World) -> None:
    services = registry_world.services
    registry_world.enrol("box-1")
    publish(registry_world, bundle_bytes("1.0.0"), default=True)  # box-1 is to have it
    publish(registry_world, bundle_bytes("1.1.0"), default=True)
    publish(registry_world, bundle_bytes("1.2.0"))
    with services.store.write() as connection:
        connection.execute(tables.bundles.update().where(tables.bundles.c.version == "1.0.0").values(state="retired"))
    done = services.collector.collect(who="ann", keep_last=1)
    assert done.removed == []
    reasons = {one.held.version: one.kept_for for one in done.kept}
    assert (reasons["1.0.0"], reasons["1.1.0"]) == ("box-1 is to have it", "it is the default")


def test_what_uploads_have_left_goes_when_it_is_old_and_nothing_else(registry_world: World) -> None:
    services = registry_world.services
    data = bundle_bytes("1.0.0")
    publish(registry_world, data)
    for store in (services.registry.blobs, services.inputs):
        for content, age_s in ((b"old", 7200.0), (b"young", 60.0)):
            store.put(content, digest=digest_of(content))
            _age(store.path(digest_of(content)), age_s)
    _age(services.registry.blobs.path(digest_of(data)), 7200.0)
    known = digest_of(b"a picture")
    services.inputs.put(b"a picture", digest=known)
    _age(services.inputs.path(known), 7200.0)
    with services.store.write() as connection:
        row = {"digest": known, "media_type": "image/png", "size_bytes": 9, "device": "box-1", "received_at_ms": 1}
        connection.execute(tables.inputs.insert().values(**row))
    done = services.collector.collect(who="ann")
    assert (done.stray_bundles, done.stray_inputs, done.removed) == (1, 1, [])
    assert services.registry.blobs.has(digest_of(data)) and services.inputs.has(known)
    for store in (services.registry.blobs, services.inputs):
        assert (store.has(digest_of(b"old")), store.has(digest_of(b"young"))) == (False, True)


def _held(rng: random.Random) -> list[Held]:
    held = []
    for name in ("m", "n"):
        default = rng.randrange(8)
        for number in range(rng.randrange(1, 8)):
            state = "approved" if number == default else rng.choice(STATES)
            digest = digest_of(f"{name}{number}".encode())
            held.append(Held(digest, name, f"1.{number}.0", state, number == default, 10))
    rng.shuffle(held)
    return held


def _reports(rng: random.Random, known: list[str]) -> tuple[dict[str, Any], set[str]]:
    reports, needed = {}, set()
    for number in range(rng.randrange(4)):
        slots = [{"bundle": {"digest": rng.choice(known)}, "state": rng.choice(("good", "staged", "trial", "bad"))}
                 for _ in range(3)]  # fmt: skip
        serving = rng.choice(known)
        stations = {"belt": {"serving": {"digest": serving}}, "idle": {"serving": None}}
        reports[f"box-{number}"] = {"slots": {"m": slots}, "stations": stations}
        needed |= {serving, *(slot["bundle"]["digest"] for slot in slots if slot["state"] != "bad")}  # type: ignore[index]
    return reports, needed


def _open_rollout(rng: random.Random, known: list[str]) -> Any:
    return [{"digest": rng.choice(known)}, {"arms": [{"previous": {"digest": rng.choice(known)}}]}]


def _key(one: Held) -> tuple[int, ...]:
    return tuple(int(part) for part in one.version.split("."))


def _report(world: World, *slots: SlotReport) -> None:
    station = StationReport(model="brightness", mode="partial", serving=slots[0].bundle)
    document = reported(slots={"brightness": list(slots)}, stations={"belt": station})
    world.take(incoming("box-1", "reported", document.model_dump_json().encode()))


def _age(path: Path, age_s: float) -> None:
    then_s = time.time() - age_s
    os.utime(path, (then_s, then_s))
