"""One sync of the disk for all who wait for one: how several stations share what durability costs.

Rules:
- Whoever waits returns after a sync that began when its own writing was done; never earlier.
- While one sync runs, all who come wait for the next one together: a busy disk does two syncs, not one for each.
- A sync that fails is an error of the one who ran it; the others that waited run the next one themselves.
"""

import threading
from collections.abc import Callable


class GroupSync:
    """Shared by all connections to one file in this process. From any thread."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._begun = 0
        self._done = 0
        self._running = False

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
        done = False
        try:
            sync()
            done = True
        finally:
            with self._turn:
                self._running = False
                if done:
                    self._done = max(self._done, number)
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
            return None
