"""One sync of the disk for all who wait for one: how several stations share what durability costs.

Rules:
- Whoever waits returns after a sync that began when its own writing was done; never earlier.
- While one sync runs, all who come wait for the next one together: a busy disk does two syncs, not one for each.
- A sync that fails is an error of all who waited for it or for the next one: the kernel tells of lost pages once, so a
  second sync that succeeds proves nothing about what was written before the first.
"""

import threading
from collections.abc import Callable

from edge.errors import StoreError

REMEMBERED = 64
"""Failures kept for those who wake up late; far more rounds than a thread sleeps."""


class GroupSync:
    """Shared by all connections to one file in this process. From any thread."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._begun = 0
        self._done = 0
        self._running = False
        self._failed: dict[int, Exception] = {}

    def wait(self, sync: Callable[[], None]) -> None:
        """Return when everything that was written before the call is on disk.

        Args:
            sync: makes it so; called by one of those who wait.

        Raises:
            StoreError: what `sync` raised.
        """
        number = self._my_turn()
        if number is None:
            return
        failure: Exception | None = None
        try:
            sync()
        except Exception as error:
            failure = error
            raise
        finally:
            with self._turn:
                self._running = False
                # Those who wait for the next one wrote before this one failed: theirs may be lost as well.
                if failure is not None:
                    self._failed = {n: why for n, why in self._failed.items() if n > number - REMEMBERED}
                    self._failed[number + 1] = failure
                self._done = max(self._done, number if failure is None else number + 1)
                self._begun = max(self._begun, self._done)
                self._turn.notify_all()

    def _my_turn(self) -> int | None:
        """Return the number of the sync that the caller has to run, or None if another one's was enough."""
        with self._turn:
            wanted = self._begun + 1
            while self._done < wanted:
                if not self._running:
                    self._running = True
                    self._begun += 1
                    return self._begun
                self._turn.wait()
            if wanted in self._failed:
                raise StoreError(f"the sync before failed: {self._failed[wanted]}", hint="look at the disk")
            return None
