"""Holds two bundles side by side: figures, size, speed, thresholds. Pure but for the measuring of speed.

Rules:
- Figures are those that the manifests hold; they are comparable only if the data behind them is the same, and the
  first row says whether it is. On one and the same data set: `lineside-export audit NEW DATA --against OLD`.
"""

from dataclasses import dataclass
from typing import Any

from edge.bundle import Bundle
from export.speed import Speed


@dataclass(frozen=True)
class Row:
    """One thing about two bundles."""

    what: str
    first: str
    second: str

    @property
    def same(self) -> bool:
        return self.first == self.second


def compare(
    first: Bundle, second: Bundle, speeds: tuple[dict[str, Speed], dict[str, Speed]] | None = None
) -> list[Row]:
    """Return all that is worth knowing of two bundles, row by row."""
    a, b = facts(first), facts(second)
    if speeds is not None:
        a |= _speeds(speeds[0])
        b |= _speeds(speeds[1])
    return [Row(name, a.get(name, "–"), b.get(name, "–")) for name in dict.fromkeys([*a, *b])]


def facts(bundle: Bundle) -> dict[str, str]:
    """Return what a bundle is and how good it says it is, as text by name."""
    manifest, ref = bundle.manifest, bundle.ref
    policy = manifest.policy.model_dump(exclude={"kind", "guarantee"})
    guarantee = manifest.policy.guarantee
    found = {
        "bundle": f"{ref.name} {ref.version}",
        "data": str(manifest.lineage.get("dataset_digest", "unknown"))[:12],
        "code": str(manifest.lineage.get("code", "unknown"))[:12],
        "labels": ", ".join(manifest.labels),
        "input": " ".join(str(value) for value in manifest.input.model_dump(exclude_none=True).values()),
        "size, bytes": f"{ref.size_bytes:,}",
        "prefers": manifest.prefer,
        "calibration": manifest.calibration.method,
        **{f"threshold {name}": f"{value:g}" for name, value in policy.items() if isinstance(value, float)},
        **{f"threshold {name}": str(value) for name, value in policy.items() if value and not isinstance(value, float)},
    }
    if guarantee is not None:
        promised = guarantee.model_dump(
            include={"alpha_escape", "alpha_false_reject", "alpha_error", "delta", "n", "coverage"}
        )
        found |= {f"promise {name}": str(value) for name, value in promised.items() if value is not None}
    return found | _figures(manifest.metrics)


def _figures(metrics: dict[str, Any]) -> dict[str, str]:
    heldout = metrics.get("export", {}).get("heldout", {})
    found = {f"held out {k}": str(v) for k, v in heldout.items() if not isinstance(v, dict)}
    found |= {f"held out recall {label}": str(value) for label, value in heldout.get("recall", {}).items()}
    judged = metrics.get("judged")
    if judged:
        found["AUROC"] = str(judged.get("auroc"))
        for name, value in judged["whole"].items():
            if value["value"] is not None:
                found[name] = f"{value['value']:.4f} ({value['low']:.4f}–{value['high']:.4f})"
    return found


def _speeds(speeds: dict[str, Speed]) -> dict[str, str]:
    return {f"{s.name}, ms p50 / p99": f"{s.p50_ms:.3f} / {s.p99_ms:.3f}" for s in speeds.values()} | {
        f"{s.name}, memory MiB": "–" if s.peak_memory_bytes is None else f"{s.peak_memory_bytes / 2**20:.1f}"
        for s in speeds.values()
    }
