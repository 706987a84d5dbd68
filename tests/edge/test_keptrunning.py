"""Tasks of the daemon: they begin again whatever ends them, and trouble is told once."""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable

import pytest
from starlette.applications import Starlette

from edge.errors import StoreError
from edge.keptrunning import kept_running
from edge.local.server import serve

FAR_S = 30.0


class Told(list[tuple[str, str, str]]):
    """What was told, and somebody who waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.came = asyncio.Event()

    def __call__(self, name: str, severity: str, detail: str) -> None:
        self.append((name, severity, detail))
        self.came.set()


def failing(*errors: Exception, then: Awaitable[object] | None = None) -> Callable[[], Awaitable[None]]:
    """Return work that fails with one error after the other, and then waits, or ends."""
    left = list(errors)

    async def work() -> None:
        if left:
            raise left.pop(0)
        if then is not None:
            await then

    return work


async def run(*errors: Exception) -> Told:
    told = Told()
    await asyncio.wait_for(kept_running("page", failing(*errors), told, first_pause_s=0), FAR_S)
    return told


def test_work_that_ends_is_over_and_nothing_is_told() -> None:
    assert asyncio.run(run()) == []


def test_same_trouble_is_told_once_however_often_it_is_tried() -> None:
    told = asyncio.run(run(*(OSError(errno.EADDRINUSE, "taken") for _ in range(5))))
    assert told == [("task_failed", "alarm", "page: [Errno 98] taken")]


def test_other_trouble_is_told_too() -> None:
    told = asyncio.run(run(OSError("taken"), StoreError("full", hint="free space"), OSError("taken")))
    assert [detail.splitlines()[0] for _, _, detail in told] == [
        "page: taken",
        "page: full",
        "page: taken",
    ]


def test_what_nobody_expected_is_told_with_where_it_happened() -> None:
    ((_, _, detail),) = asyncio.run(run(ZeroDivisionError("oh")))
    assert detail.startswith("page: ZeroDivisionError: oh\n") and "test_keptrunning.py" in detail


def test_work_that_lasts_again_is_told_and_its_next_trouble_is_new() -> None:
    async def scene() -> Told:
        told, release = Told(), asyncio.Event()
        calls = iter((OSError("taken"), None, OSError("taken")))

        async def work() -> None:
            error = next(calls, "over")
            if isinstance(error, OSError):
                raise error
            if error is None:
                await release.wait()
                raise OSError("taken")

        running = asyncio.create_task(kept_running("page", work, told, first_pause_s=0, lasts_s=0.01))
        while len(told) < 2:
            told.came.clear()
            await asyncio.wait_for(told.came.wait(), FAR_S)
        release.set()
        await asyncio.wait_for(running, FAR_S)
        return told

    assert [name for name, _, _ in asyncio.run(scene())] == ["task_failed", "task_recovered", "task_failed"]


def test_cancelling_ends_the_work_as_well() -> None:
    async def scene() -> bool:
        begun, ended = asyncio.Event(), False

        async def work() -> None:
            nonlocal ended
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended = True

        running = asyncio.create_task(kept_running("page", work, Told()))
        await asyncio.wait_for(begun.wait(), FAR_S)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return ended

    assert asyncio.run(scene())


def test_page_on_a_port_that_is_taken_says_so_in_words(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen on 127.0.0.1:{port}: Address already in use; end what has"):
            asyncio.run(serve(Starlette(), "127.0.0.1", port))
    assert capfd.readouterr().err == ""
