"""When trouble is told: once as it begins and once as it ends, not with every part. Pure."""

from dataclasses import dataclass

CLEAR_AFTER = 3
"""Successes in a row that end the trouble: one part that came through a loose contact is not a mended one."""


@dataclass
class Hysteresis:
    """The state of one thing that works or does not."""

    clear_after: int = CLEAR_AFTER
    failing: bool = False
    _good: int = 0

    def failed(self) -> bool:
        """Count a failure; return whether this one begins the trouble."""
        begins, self.failing, self._good = not self.failing, True, 0
        return begins

    def worked(self) -> bool:
        """Count a success; return whether this one ends the trouble."""
        if not self.failing:
            return False
        self._good += 1
        if self._good < self.clear_after:
            return False
        self.failing, self._good = False, 0
        return True
