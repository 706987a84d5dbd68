"""A dataset version is named by its content: the same answers, the same version."""

import hashlib
import json
from typing import Any

import pytest

from cloud import tables
from tests.cloud.folk import bearer, person, token
from tests.cloud.serving import serving
from tests.cloud.world import World, decision, up

BUNDLE = {"name": "brightness", "version": "1.0.0", "digest": "ab" * 32, "size_bytes": 10}


def deferred(seq: int, **fields: Any) -> dict[str, Any]:
    """Return a decision that waits for a person."""
    return decision(seq, verdict="defer", action="hand_over", reason="unsure", bundle=BUNDLE, **fields)


def answer(world: World, seqs: range, answer: str = "pass", **fields: Any) -> None:
    """Let a person answer decisions of box-1."""
    for seq in seqs:
        world.services.reviews.answer("box-1", "i1", seq, answer=answer, reviewer="eva", **fields)


@pytest.fixture(autouse=True)
def _waiting(world: World) -> None:
    world.enrol("box-1")
    world.take(up("box-1", [deferred(seq) for seq in range(1, 31)]))


def test_version_holds_the_newest_answers_and_is_named_by_its_bytes(world: World) -> None:
    answer(world, range(1, 6))
    answer(world, range(2, 3), "divert", label="scratch")
    answer(world, range(6, 8), "cant_tell")
    datasets = world.services.retrainings.datasets
    version = datasets.export("brightness", who="anna")
    data = datasets.blobs.path(version.digest).read_bytes()
    assert hashlib.sha256(data).hexdigest() == version.digest
    head, *rows = [json.loads(one) for one in data.splitlines()]
    assert (head["rows"], version.rows, len(rows)) == (5, 5, 5)
    assert [(row["input"], row["answer"], row["label"]) for row in rows][1] == (f"{2:064x}", "divert", "scratch")
    assert rows == sorted(rows, key=lambda row: row["input"])


def test_same_answers_give_the_same_version_and_more_answers_another(world: World) -> None:
    datasets = world.services.retrainings.datasets
    answer(world, range(5, 10))
    first = datasets.export("brightness", who="anna")
    world.clock.forward(100)
    assert datasets.export("brightness", who="ben") == first
    answer(world, range(1, 5))
    second = datasets.export("brightness", who="anna")
    assert second.digest != first.digest
    assert [one.digest for one in datasets.versions("brightness")] == [second.digest, first.digest]
    assert datasets.blobs.path(first.digest).exists()


def test_what_was_to_be_forgotten_is_in_no_new_version(world: World) -> None:
    answer(world, range(1, 4))
    with world.services.store.write() as connection:
        row = {"device": "box-1", "digest": f"{2:064x}", "incarnation": "i1", "seq": 99, "at_ms": 1}
        connection.execute(tables.erasures.insert().values(**row))
    assert world.services.retrainings.datasets.export("brightness", who="anna").rows == 2


def test_versions_are_made_and_read_by_api(world: World) -> None:
    answer(world, range(1, 4))
    person(world.services, "ada", "admin")
    with serving(world.services, headers=bearer(token(world.services, "ada", "admin"))) as client:
        made = client.post("/v1/datasets", json={"model": "brightness"}).json()
        assert client.get("/v1/datasets").json()["datasets"] == [made]
        data = client.get(f"/v1/datasets/{made['digest']}").content
        assert hashlib.sha256(data).hexdigest() == made["digest"]
        assert client.get(f"/v1/datasets/{'0' * 64}").status_code == 404
        assert client.get("/v1/datasets/..%2Fcloud.sqlite").status_code == 404
