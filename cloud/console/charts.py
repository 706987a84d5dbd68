"""The geometry of the small charts: values in, SVG coordinates out; pure.

Rules:
- A chart's box is `WIDTH` × `HEIGHT` units and is stretched by the page; strokes do not scale.
- Nothing is drawn from nothing: without values there is no chart, and the page says why.
- Where readings lie outside of the scale they are drawn at its edge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cloud.console.histograms import quantile
from edge.wire.rows import Histogram

WIDTH = 300
HEIGHT = 64
_PAD = 4.0
"""Units left free above and below, so that a line at the edge is seen whole."""
_GAP_FACTOR = 4
"""Readings further apart than so many usual steps are not joined: silence is not drawn as a line."""
_MIN_SHARE = 0.004
"""Narrowest part of a bar, as a share of it: one in a thousand stays visible."""


@dataclass(frozen=True)
class Trend:
    """A value over time above the band that reference data lie in (5 % to 95 %)."""

    path: str
    dots: list[tuple[float, float]]
    """Readings that stand alone, and the last one."""
    band_top: float | None
    band_height: float | None
    low: float
    high: float
    last: float
    outside: bool
    """Whether the last reading lies outside of the band."""


@dataclass(frozen=True)
class Distribution:
    """Two distributions over the same bins: bars for the reference, an outline for now."""

    bars: list[tuple[float, float, float, float]]
    """x, y, width, height of each bar."""
    outline: str
    low: float
    high: float


@dataclass(frozen=True)
class Part:
    """One part of a stacked bar, in per cent of its width."""

    name: str
    share: float
    x: float
    width: float


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval and the margin it is held against, in per cent of the bar's width."""

    low: float
    high: float
    point: float | None
    margin: float | None
    zero: float | None
    start_value: float
    end_value: float


def trend(points: Sequence[tuple[int, float]], reference: Histogram | None = None) -> Trend | None:
    """Return the chart of (time in ms, value) pairs in order of time, or None without any."""
    if not points:
        return None
    low_ref = quantile(reference, 0.05) if reference else None
    high_ref = quantile(reference, 0.95) if reference else None
    values = [value for _, value in points] + [v for v in (low_ref, high_ref) if v is not None]
    low, high = _widened(min(values), max(values))
    start, end = points[0][0], points[-1][0]
    places = [(_x(at, start, end), _y(value, low, high)) for at, value in points]
    path, alone = _joined(points, places)
    band_top = _y(high_ref, low, high) if high_ref is not None else None
    band_low = _y(low_ref, low, high) if low_ref is not None else None
    last = points[-1][1]
    return Trend(
        path=path,
        dots=[*alone, places[-1]],
        band_top=band_top,
        band_height=max(2.0, band_low - band_top) if band_top is not None and band_low is not None else None,
        low=low,
        high=high,
        last=last,
        outside=low_ref is not None and high_ref is not None and not low_ref <= last <= high_ref,
    )


def distribution(reference: Histogram, now: Histogram) -> Distribution | None:
    """Return both distributions as shares per bin, or None where they cannot be compared."""
    if reference.edges != now.edges or not reference.total or not now.total:
        return None
    used = [i for i, (a, b) in enumerate(zip(reference.counts, now.counts, strict=True)) if a or b]
    first, last = used[0], used[-1]
    shares_ref = [n / reference.total for n in reference.counts[first : last + 1]]
    shares_now = [n / now.total for n in now.counts[first : last + 1]]
    top = max(*shares_ref, *shares_now)
    step = WIDTH / len(shares_ref)
    bars = []
    for i, share in enumerate(shares_ref):
        height = share / top * (HEIGHT - _PAD)
        bars.append((round(i * step, 2), round(HEIGHT - height, 2), round(max(step - 1, 1), 2), round(height, 2)))
    edges = reference.edges
    return Distribution(bars, _steps(shares_now, step, top), edges[max(first - 1, 0)], edges[min(last, len(edges) - 1)])


def stack(counts: Mapping[str, int]) -> list[Part]:
    """Return the parts of a bar that shows each count's share, in the order given; empty without counts."""
    total = sum(counts.values())
    shown = {name: max(n / total, _MIN_SHARE) for name, n in counts.items() if n} if total else {}
    scale = 100 / sum(shown.values()) if shown else 0.0
    parts, x = [], 0.0
    for name, width in shown.items():
        parts.append(Part(name, counts[name] / total, round(x, 2), round(width * scale, 2)))
        x += width * scale
    return parts


def interval(
    low: float, high: float, point: float | None = None, margin: float | None = None, *, floor: float = 0.0
) -> Interval:
    """Return the bar of an interval against a margin; the scale holds both, and `floor` (usually zero)."""
    values = [v for v in (low, high, point, margin, floor) if v is not None]
    start, end = min(values), max(values)
    room = (end - start) * 0.08 or 1.0
    start, end = (start if start >= 0 else start - room), end + room

    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * (value - start) / (end - start), 2)

    return Interval(place(low) or 0.0, place(high) or 0.0, place(point), place(margin), place(0.0), start, end)


def _widened(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.1 or abs(high) * 0.1 or 1.0
    return (max(0.0, low - room) if low >= 0 else low - room), high + room


def _x(at: int, start: int, end: int) -> float:
    return round(WIDTH * (at - start) / (end - start), 2) if end > start else WIDTH / 2


def _y(value: float, low: float, high: float) -> float:
    share = min(1.0, max(0.0, (value - low) / (high - low)))
    return round(HEIGHT - _PAD - share * (HEIGHT - 2 * _PAD), 2)


def _joined(
    points: Sequence[tuple[int, float]], places: Sequence[tuple[float, float]]
) -> tuple[str, list[tuple[float, float]]]:
    """Return the line's path, broken where readings are missing, and the readings that stand alone."""
    steps = sorted(b[0] - a[0] for a, b in pairwise(points))
    usual = steps[len(steps) // 2] if steps else 0
    runs: list[list[tuple[float, float]]] = [[places[0]]]
    for (before, after), place in zip(pairwise(points), places[1:], strict=False):
        if after[0] - before[0] > _GAP_FACTOR * usual:
            runs.append([])
        runs[-1].append(place)
    path = " ".join("M" + " L".join(f"{x} {y}" for x, y in run) for run in runs if len(run) > 1)
    return path, [run[0] for run in runs if len(run) == 1]


def _steps(shares: Sequence[float], step: float, top: float) -> str:
    words = []
    for i, share in enumerate(shares):
        y = round(HEIGHT - share / top * (HEIGHT - _PAD), 2)
        words.append(f"{'M' if i == 0 else 'L'}{round(i * step, 2)} {y} L{round((i + 1) * step, 2)} {y}")
    return " ".join(words)
