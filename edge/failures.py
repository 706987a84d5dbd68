"""Says when a bundle in service has failed too often of late, whatever went well in between: a count, no clock.

Rules:
- Two failures with nothing judged between them are too many: it was opened anew and proved in between, so it is not the
  moment that was bad, but the bundle.
- Three failures among its last twenty windows are too many: a station that loses more than one part in seven to its
  network does not work.
- Five failures within a minute are too many, too: on a fast line a network may crash every few seconds and still judge
  most parts.
- Opening a bundle again forgives it nothing; another bundle begins with nothing held against it.
"""

from collections import deque
from dataclasses import dataclass, field

IN_A_ROW = 2
FAILED_WINDOWS, OF_LAST_WINDOWS = 3, 20
FAILURES, WITHIN_S = 5, 60.0


@dataclass
class RecentFailures:
    """The last failures of one bundle. Counting a good window costs one addition."""

    windows: int = 0
    """Windows so far, failed ones included."""
    _failed: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=max(FAILED_WINDOWS, FAILURES)))
    """Number of the window and time in seconds of each of the last failures."""

    def served(self) -> None:
        """Count a window that was judged."""
        self.windows += 1

    def failed(self, now_s: float) -> None:
        """Count a window that was not, or a try to open that failed."""
        self.windows += 1
        self._failed.append((self.windows, now_s))

    def too_many(self, now_s: float) -> str | None:
        """Return how often it has failed, in words, if that is too often."""
        failed = list(self._failed)
        if len(failed) >= IN_A_ROW and self.windows - failed[-IN_A_ROW][0] < IN_A_ROW:
            return f"{IN_A_ROW} failures in a row"
        if len(failed) >= FAILED_WINDOWS and self.windows - failed[-FAILED_WINDOWS][0] < OF_LAST_WINDOWS:
            return f"{FAILED_WINDOWS} failures within {self.windows - failed[-FAILED_WINDOWS][0] + 1} windows"
        if len(failed) >= FAILURES and now_s - failed[-FAILURES][1] <= WITHIN_S:
            return f"{FAILURES} failures within {now_s - failed[-FAILURES][1]:.0f} s"
        return None
