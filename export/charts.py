"""Small charts as SVG text, from counts: pure.

Rules:
- Colours are told apart without red and green, and read on light and dark ground; every axis is named.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

_WIDE, _HIGH = 420, 230
_LEFT, _BOTTOM, _TOP = 12, 36, 22
_COLOURS = ("#3b7dd8", "#e08214", "#7a5195", "#2a9d8f")
_INK = "#7d8896"


def histogram(sides: Mapping[str, Sequence[int]], marks: Mapping[str, float], axis: str) -> str:
    """Return histograms over 0…1 drawn over each other, with named lines at the thresholds.

    Args:
        sides: counts per bin, by name; drawn as roots, so that few among many are seen.
        marks: thresholds by name; those outside 0…1 are not drawn.
        axis: what the scores are.
    """
    width, height = _WIDE - 2 * _LEFT, _HIGH - _BOTTOM - _TOP
    most = max((count for counts in sides.values() for count in counts), default=0) ** 0.5 or 1.0
    parts = []
    for number, counts in enumerate(sides.values()):
        bar = width / len(counts)
        for place, count in enumerate(counts):
            tall = height * count**0.5 / most
            x, y = _LEFT + place * bar, _TOP + height - tall
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(bar - 1, 1):.1f}" height="{tall:.1f}" '
                f'fill="{_COLOURS[number % len(_COLOURS)]}" opacity="0.62"><title>{count}</title></rect>'
            )
    for number, name in enumerate(sides):
        parts.append(_words(_LEFT + 6 + 120 * number, 14, f"■ {name}", colour=_COLOURS[number % len(_COLOURS)]))
    for name, value in marks.items():
        if 0 <= value <= 1:
            x = _LEFT + value * width
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_TOP + height}" stroke="{_INK}" stroke-width="2"/>'
            )
            anchor = "end" if value > 0.5 else "start"
            parts.append(_words(x + (-4 if anchor == "end" else 4), _TOP + 12, f"{name} {value:g}", anchor=anchor))
    return _svg(_WIDE, _HIGH, parts + _unit_axis(width, height, axis))


def reliability(points: Sequence[Mapping[str, Any]]) -> str:
    """Return right answers against claimed probability; points are as large as they have examples."""
    side = _HIGH - _BOTTOM - _TOP
    left = 44
    most = max((point["count"] for point in points), default=1)
    parts = [
        f'<line x1="{left}" y1="{_TOP + side}" x2="{left + side}" y2="{_TOP}" stroke="{_INK}" stroke-dasharray="4 4"/>'
    ]
    for point in points:
        x, y = left + point["confidence"] * side, _TOP + (1 - point["right"]) * side
        radius = 2.5 + 7 * (point["count"] / most) ** 0.5
        title = f"{point['count']} examples: claimed {point['confidence']:.2f}, right {point['right']:.2f}"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{_COLOURS[0]}" opacity="0.75">'
            f"<title>{title}</title></circle>"
        )
    parts.append(f'<rect x="{left}" y="{_TOP}" width="{side}" height="{side}" fill="none" stroke="{_INK}"/>')
    parts += [_words(left, _HIGH - 18, "0"), _words(left + side, _HIGH - 18, "1", anchor="end")]
    parts.append(_words(left + side / 2, _HIGH - 4, "probability claimed", anchor="middle"))
    parts.append(_words(4, _TOP + 10, "right"))
    return _svg(left + side + 12, _HIGH, parts)


def reference(edges: Sequence[float], counts: Sequence[int]) -> str:
    """Return a small histogram with uneven edges; the outer bins are open and drawn as wide as their neighbours."""
    inner = [edges[0] - (edges[1] - edges[0]), *edges, edges[-1] + (edges[-1] - edges[-2])]
    low, span = inner[0], max(inner[-1] - inner[0], 1e-12)
    heights = [count / max(inner[i + 1] - inner[i], 1e-12) for i, count in enumerate(counts)]
    most = max(heights, default=1.0) or 1.0
    parts = []
    for place, tall in enumerate(heights):
        x, wide = 4 + 172 * (inner[place] - low) / span, 172 * (inner[place + 1] - inner[place]) / span
        high = 56 * tall / most
        parts.append(
            f'<rect x="{x:.1f}" y="{60 - high:.1f}" width="{max(wide - 0.5, 0.5):.1f}" height="{high:.1f}" '
            f'fill="{_COLOURS[0]}"/>'
        )
    parts += [_words(4, 74, f"{edges[0]:.3g}"), _words(176, 74, f"{edges[-1]:.3g}", anchor="end")]
    return _svg(180, 78, parts)


def _unit_axis(width: float, height: float, name: str) -> list[str]:
    floor = _TOP + height
    return [
        f'<line x1="{_LEFT}" x2="{_LEFT + width}" y1="{floor}" y2="{floor}" stroke="{_INK}"/>',
        _words(_LEFT, floor + 16, "0"),
        _words(_LEFT + width, floor + 16, "1", anchor="end"),
        _words(_LEFT + width / 2, floor + 30, name, anchor="middle"),
    ]


def _words(x: float, y: float, text: str, *, anchor: str = "start", colour: str = _INK) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}" font-size="12">{html.escape(text)}</text>'


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="system-ui,sans-serif">{"".join(parts)}</svg>'
    )
