"""Keeps a task of the daemon running: it begins again whatever ends it, and trouble is told once, not at every try.

Rules:
- The pause before the next try doubles, from one second to ten; who has lasted begins with a second again.
- An alarm as trouble begins, or becomes another; an event as the task has lasted again.
- What can be expected (a port that is taken, a disk that is full) is said in words; the rest with where it happened.
"""

import asyncio
import contextlib
import traceback
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol

from edge.errors import LinesideError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 10.0
"""The longest stays well below systemd's watchdog, whose feeding is a task too."""
LASTS_S = 10.0
"""A task that has run for so long since its last trouble is well again."""


class Tell(Protocol):
    """Records an event."""

    def __call__(self, name: str, severity: Literal["info", "warning", "alarm"], detail: str) -> object: ...


async def kept_running(
    name: str,
    work: Callable[[], Awaitable[None]],
    tell: Tell,
    *,
    first_pause_s: float = FIRST_PAUSE_S,
    lasts_s: float = LASTS_S,
) -> None:
    """Run `work` until it ends by itself.

    Args:
        name: the task's name in events.
        work: begun anew after every failure.
        tell: records `task_failed` and `task_recovered`.
        first_pause_s: pause before the second try, seconds.
        lasts_s: after so long a task counts as well again, seconds.
    """
    told: str | None = None
    pause_s = first_pause_s
    while True:
        task = asyncio.ensure_future(work())
        try:
            done, _ = await asyncio.wait({task}, timeout=lasts_s)
            if not done:
                if told is not None:
                    tell("task_recovered", "info", f"{name}: runs again")
                told, pause_s = None, first_pause_s
            await task
        except Exception as error:  # noqa: BLE001 - a task never dies in silence
            problem = f"{name}: {_words(error)}"
            if problem != told:
                tell("task_failed", "alarm", problem if _expected(error) else f"{problem}\n{_where(error)}")
            told = problem
        else:
            return
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):  # its own ending is part of ours
                await task
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


def _expected(error: Exception) -> bool:
    return isinstance(error, OSError | LinesideError)


def _words(error: Exception) -> str:
    if isinstance(error, LinesideError):
        return error.for_people()
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


def _where(error: Exception) -> str:
    return "".join(traceback.format_exception(error))[-2000:]
