"""Those who wait for the disk share its syncs, and nobody returns before a sync that began after their own writing."""

import threading
from pathlib import Path

import pytest

from edge.clock import SystemClock
from edge.errors import StoreError
from edge.groupsync import GroupSync
from edge.store import Store
from tests.rows import decision
from tests.waiting import wait_until

WAIT_S = 10.0


class Disk:
    """A disk whose syncs last until they are let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.fails = False
        self._go = threading.Semaphore(0)

    def sync(self) -> None:
        self.begun += 1
        assert self._go.acquire(timeout=WAIT_S)
        if self.fails:
            raise StoreError("the disk failed")

    def let_go(self) -> None:
        self._go.release()


def waiting(group: GroupSync, disk: Disk, count: int) -> tuple[list[threading.Thread], list[str]]:
    """Start threads that each wait for a sync; return them and what became of them."""
    ended: list[str] = []

    def one() -> None:
        try:
            group.wait(disk.sync)
            ended.append("safe")
        except StoreError:
            ended.append("failed")

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, ended


def test_those_who_come_during_a_sync_share_the_next_one() -> None:
    group, disk = GroupSync(), Disk()
    first, ended_first = waiting(group, disk, 1)
    wait_until(lambda: disk.begun == 1, WAIT_S, "the first sync")
    others, ended = waiting(group, disk, 5)
    wait_until(lambda: len(group._turn._waiters) == 5, WAIT_S, "all others to wait")  # type: ignore[attr-defined]
    disk.let_go()
    wait_until(lambda: disk.begun == 2, WAIT_S, "the second sync")
    first[0].join(WAIT_S)
    assert (ended_first, ended) == (["safe"], [])
    disk.let_go()
    for thread in others:
        thread.join(WAIT_S)
    assert (disk.begun, ended) == (2, ["safe"] * 5)


def test_sync_that_fails_is_an_error_of_all_who_had_written_before() -> None:
    group, disk = GroupSync(), Disk()
    disk.fails = True
    first, ended_first = waiting(group, disk, 1)
    wait_until(lambda: disk.begun == 1, WAIT_S, "the first sync")
    others, ended = waiting(group, disk, 2)
    wait_until(lambda: len(group._turn._waiters) == 2, WAIT_S, "the others to wait")  # type: ignore[attr-defined]
    disk.let_go()
    for thread in (*first, *others):
        thread.join(WAIT_S)
    assert (ended_first, ended) == (["failed"], ["failed", "failed"])
    disk.fails = False
    later, ended_later = waiting(group, disk, 1)
    wait_until(lambda: disk.begun == 2, WAIT_S, "the sync after")
    disk.let_go()
    later[0].join(WAIT_S)
    assert ended_later == ["safe"]


def test_decision_is_synced_with_durability_power_and_its_outcome_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(tmp_path / "record.sqlite", clock=SystemClock(), durability="power") as store:
        synced: list[int] = []
        monkeypatch.setattr(store._c, "sync", lambda: synced.append(1))
        store.append_decision(decision(), input_key="a")
        assert len(synced) == 1
        store.append_event("happened", boot_id="b")
        store.set_meta("key", "value")
        assert len(synced) == 3


def test_decision_that_does_not_reach_the_disk_is_an_error_and_is_said_not_to_have_been_acted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise StoreError("cannot sync")

    with Store.open(tmp_path / "record.sqlite", clock=SystemClock(), durability="power") as store:
        monkeypatch.setattr(store._c, "sync", fails)
        with pytest.raises(StoreError, match="cannot sync"):
            store.append_decision(decision(action="pass"), input_key="a")
        (outcome,) = store.rows(kind="outcome")
        assert outcome.state == "failed" and "did not reach the disk" in str(outcome.detail)  # type: ignore[union-attr]
        assert store.pending_actions() == []
