"""What candidates in the shadow said to windows that the incumbent decided, beside the incumbent's decisions.

Rules:
- Never sent row by row: counts and disagreements go up as events.
- They go with the decisions that they belong to.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

from edge.connection import Connection


class ShadowResult(NamedTuple):
    """What a candidate said to a window that the incumbent decided."""

    decision_seq: int
    digest: str
    """Of the candidate's bundle."""
    version: str
    verdict: str
    label: str | None
    confidence: float | None
    scores: dict[str, float]
    latency_ms: float
    at_ms: int


class ShadowResults:
    """The part of the store that holds them; shares its connection and its rules."""

    def __init__(self, connection: Connection) -> None:
        self._c = connection

    def keep(self, results: Sequence[ShadowResult]) -> None:
        """Record what a candidate said, all or nothing.

        Raises:
            StoreError: nothing of it was recorded.
        """
        if not results:
            return
        with self._c.write:
            for result in results:
                values = (*result[:6], json.dumps(result.scores), *result[7:])
                self._c.execute("INSERT OR REPLACE INTO shadow_results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def last(self, n: int) -> list[ShadowResult]:
        """Return the newest results, newest first."""
        found = self._c.all("SELECT * FROM shadow_results ORDER BY decision_seq DESC, digest LIMIT ?", n)
        return [ShadowResult._make([*row[:6], json.loads(row[6]), *row[7:]]) for row in found]
