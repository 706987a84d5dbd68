"""Turns one telemetry window into what it adds to which series; pure.

Rules:
- A window counts in the minute, hour and day in which it began, by the device's clock; where that runs ahead of ours,
  in those in which it came.
- What cannot be followed (a name too long, too many metrics, bins without end) is left out, the rest counts.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cloud.telemetry.sketches import Bins, sparse
from cloud.telemetry.stages import edges_of_health, hears, stage_of
from edge.wire.rows import Histogram, TelemetryRow

STEPS_S = (60, 3600, 86_400)
AHEAD_MS = 5 * 60_000
"""A clock that runs ahead by more is wrong; time goes on while a window is on its way."""
MAX_NAME = 64
MAX_METRICS = 256
"""Of one window: a station has about thirty."""
MAX_EDGES = 512
MAX_COUNT = 2**53


class Series(NamedTuple):
    """What is counted where."""

    device: str
    station: str
    model: str
    version: str
    digest: str
    stage: str
    metric: str
    edges: tuple[float, ...]
    """Empty for a plain count."""


@dataclass
class Amount:
    """What a series has counted in some time."""

    n: int = 0
    bins: Bins | None = None

    def add(self, other: "Amount") -> None:
        """Add another amount of the same series."""
        self.n = min(self.n + other.n, 2 * MAX_COUNT)
        if other.bins is not None:
            self.bins = Counter() if self.bins is None else self.bins
            self.bins.update(other.bins)


def of_window(device: str, body: Mapping[str, Any]) -> Iterator[tuple[Series, Amount]]:
    """Give what a telemetry row adds.

    Raises:
        ValueError: it is not one.
    """
    row = TelemetryRow.model_validate(body)
    hearing = hears([*row.counts, *row.histograms])
    bundle = row.bundle
    where = (device, row.station, row.model, bundle.version if bundle else "", bundle.digest if bundle else "")
    for name in [*row.counts, *row.histograms][:MAX_METRICS]:
        if len(name) > MAX_NAME or not name.isprintable():
            continue
        stage = stage_of(name, hearing=hearing)
        count, histogram = row.counts.get(name), row.histograms.get(name)
        if count is not None and 0 < count <= MAX_COUNT:
            yield Series(*where, stage, name, ()), Amount(count)
        if histogram is not None and is_usable(histogram):
            bins = sparse(histogram.counts)
            yield Series(*where, stage, name, tuple(histogram.edges)), Amount(bins.total(), bins)


def of_health(device: str, values: Mapping[str, float]) -> Iterator[tuple[Series, Amount]]:
    """Give what a sample of a device's own state adds."""
    for name, value in values.items():
        edges = tuple(edges_of_health(name))
        bins = Counter({sum(1 for edge in edges if edge <= value): 1})
        yield Series(device, "", "", "", "", "device", name, edges), Amount(1, bins)


def is_usable(histogram: Histogram) -> bool:
    """Return whether a histogram holds something that can be added."""
    return len(histogram.edges) <= MAX_EDGES and 0 < sum(n for n in histogram.counts if n > 0) <= MAX_COUNT


def began_ms(body: Mapping[str, Any], received_at_ms: int) -> int:
    """Return the moment in whose minute, hour and day a window counts."""
    started_ms = int(body["started_at_ms"])
    return received_at_ms if started_ms > received_at_ms + AHEAD_MS else started_ms


def floor_ms(at_ms: int, step_s: int) -> int:
    """Return the start of the minute, hour or day (UTC) that holds a moment."""
    return at_ms - at_ms % (step_s * 1000)


def edges_digest(edges: tuple[float, ...]) -> str:
    """Return the SHA-256 by which edges are kept once."""
    return hashlib.sha256(json.dumps(edges).encode()).hexdigest()
