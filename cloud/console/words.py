"""From numbers to words for people: durations, sizes, shares, plurals; pure.

Rules:
- A missing number is an en dash, never a zero.
- Units stand after the number with a no-break space; digits are grouped by narrow spaces.
"""

from datetime import UTC, datetime

NBSP = "\u00a0"
NONE = "–"
_UNITS = {"dbfs": "dBFS", "db": "dB", "s": "s", "ms": "ms", "hz": "Hz", "c": "°C"}
_STEPS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))


def duration(span_ms: float | None) -> str:
    """Return a duration in its largest whole unit, for example `12 s` or `3 h`."""
    if span_ms is None:
        return NONE
    for step_ms, unit in _STEPS:
        if span_ms >= step_ms:
            return f"{int(span_ms // step_ms)}{NBSP}{unit}"
    return f"0{NBSP}s"


def ago(at_ms: int | None, now_ms: int) -> str:
    """Return how long ago a moment was; a moment ahead of us says so rather than `0 s ago`."""
    if at_ms is None:
        return NONE
    span_ms = now_ms - at_ms
    return f"{duration(span_ms)} ago" if span_ms > -1000 else f"in {duration(-span_ms)}"


def iso(at_ms: int) -> str:
    """Return a moment as ISO 8601 in UTC, to the millisecond."""
    return _utc(at_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(at_ms: int | None) -> str:
    """Return a moment as date and time in UTC; the page's script turns it into the reader's own time zone."""
    return NONE if at_ms is None else _utc(at_ms).strftime("%d %b %H:%M:%S UTC")


def count(value: float | None) -> str:
    """Return a whole number with its digits grouped."""
    return NONE if value is None else f"{int(value):,}".replace(",", "\u202f")


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits, never in scientific notation below a million."""
    if value is None:
        return NONE
    if value == 0 or abs(value) >= 10 ** (digits - 1):
        return count(round(value)) if abs(value) < 1e15 else f"{value:.{digits}g}"
    text = f"{value:.{digits}g}"
    return f"{value:.6f}".rstrip("0") if "e" in text else text


def percent(share: float | None) -> str:
    """Return a share as a percentage; what is nearly none or nearly all is not rounded to none or all."""
    if share is None:
        return NONE
    value = share * 100
    if 0 < value < 0.1:
        return f"<{NBSP}0.1{NBSP}%"
    if 99.9 < value < 100:
        return f">{NBSP}99.9{NBSP}%"
    fine = 0 < value < 10 or 99 < value < 100
    return f"{value:.1f}{NBSP}%" if fine else f"{value:.0f}{NBSP}%"


def millis(value_ms: float | None) -> str:
    """Return a latency in milliseconds, or in seconds from ten of them on."""
    if value_ms is None:
        return NONE
    if value_ms >= 10_000:
        return f"{value_ms / 1000:.1f}{NBSP}s"
    return f"{value_ms:.0f}{NBSP}ms" if value_ms >= 100 else f"{value_ms:.1f}{NBSP}ms"


def size(size_bytes: float | None) -> str:
    """Return a size in decimal units."""
    if size_bytes is None:
        return NONE
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f}{NBSP}{unit}" if unit == "B" or value >= 100 else f"{value:.1f}{NBSP}{unit}"
        value /= 1000
    return f"{value:.1f}{NBSP}TB"


def plural(value: int, one: str, many: str = "") -> str:
    """Return the number with its noun."""
    return f"{count(value)}{NBSP}{one if value == 1 else many or one + 's'}"


def plain(word: str) -> str:
    """Return a name of the contract as words: `out_of_distribution` becomes `out of distribution`."""
    return word.replace("_", " ")


def metric(name: str) -> str:
    """Return the name of a metric with its unit apart: `level_dbfs` becomes `level, dBFS`."""
    if name == "latency_ms.total":
        return "latency"
    stem, _, last = name.rpartition("_")
    return f"{plain(stem)}, {_UNITS[last]}" if stem and last in _UNITS else plain(name)


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC)
