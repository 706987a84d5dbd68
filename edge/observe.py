"""What a station's decisions look like from above: counts and histograms per window of time, and drift.

Rules:
- Everything in a window can be added to that of another window, station or device.
- Telemetry is written when its window is over, also when nothing was decided in it.
- Drift is watched per bundle: a new bundle brings a new reference and begins anew.
"""

import bisect
from collections import Counter
from typing import Any, Literal, Protocol

from edge.clock import Clock
from edge.drift import DriftWatch, Shift
from edge.wire.base import BundleRef
from edge.wire.manifest import Manifest
from edge.wire.rows import LATENCY_EDGES_MS, UNIT_EDGES, DecisionRow, EventRow, Histogram, TelemetryRow


class EventSink(Protocol):
    """Where events go: the part of the store that is needed for them."""

    def append_event(
        self,
        name: str,
        *,
        boot_id: str,
        severity: Literal["info", "warning", "alarm"] = "info",
        station: str | None = None,
        model: str | None = None,
        detail: str = "",
        data: dict[str, Any] | None = None,
    ) -> EventRow: ...


class Sink(EventSink, Protocol):
    """Where telemetry goes."""

    def append_telemetry(self, row: TelemetryRow) -> TelemetryRow: ...


class Observer:
    """Counts one station's decisions. Belongs to the pipeline's thread."""

    def __init__(self, station: str, model: str, sink: Sink, clock: Clock, boot_id: str, window_s: float) -> None:
        self._station = station
        self._model = model
        self._sink = sink
        self._clock = clock
        self._boot_id = boot_id
        self._window_s = window_s
        self._bundle: BundleRef | None = None
        self._edges: dict[str, list[float]] = {}
        self._drift = DriftWatch({})
        self._begin()

    @property
    def drifting(self) -> list[str]:
        """Metrics that differ from the reference now."""
        return self._drift.alarmed

    def decided(self, decision: DecisionRow, manifest: Manifest | None) -> None:
        """Count one decision and tell what has drifted."""
        self._know(decision.bundle, manifest)
        self._count(decision)
        values = dict(decision.metrics)
        if decision.confidence is not None:
            values["confidence"] = decision.confidence
        if decision.metrics:
            for shift in self._drift.add(values):
                self._tell(shift)
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Write the window if its time is over."""
        if self._clock.monotonic_s() - self._started_s >= self._window_s:
            self.flush()

    def flush(self) -> None:
        """Write the window and begin the next."""
        row = TelemetryRow(
            seq=1,
            station=self._station,
            model=self._model,
            bundle=self._bundle,
            started_at_ms=self._started_ms,
            ended_at_ms=self._clock.now_ms(),
            counts=dict(self._counts),
            histograms={name: Histogram(edges=self._edges_of(name), counts=bins) for name, bins in self._bins.items()},
        )
        self._begin()
        self._sink.append_telemetry(row)

    def _begin(self) -> None:
        self._started_s = self._clock.monotonic_s()
        self._started_ms = self._clock.now_ms()
        self._counts: Counter[str] = Counter({"decisions": 0})
        self._bins: dict[str, list[int]] = {}

    def _know(self, bundle: BundleRef | None, manifest: Manifest | None) -> None:
        if bundle == self._bundle or manifest is None:
            return
        if self._counts["decisions"]:
            self.flush()
        self._bundle = bundle
        self._edges = {name: list(histogram.edges) for name, histogram in manifest.reference.items()}
        self._drift = DriftWatch(manifest.reference)

    def _count(self, decision: DecisionRow) -> None:
        self._counts["decisions"] += 1
        self._counts[f"verdict.{decision.verdict}"] += 1
        self._counts[f"action.{decision.action}"] += 1
        if decision.reason:
            self._counts[f"reason.{decision.reason}"] += 1
        if decision.label:
            self._counts[f"label.{decision.label}"] += 1
        for step, value in decision.latency_ms.items():
            self._bin(f"latency_ms.{step}", value)
        for name, value in decision.metrics.items():
            self._bin(name, value)
        if decision.confidence is not None:
            self._bin("confidence", decision.confidence)

    def _bin(self, name: str, value: float) -> None:
        edges = self._edges_of(name)
        bins = self._bins.setdefault(name, [0] * (len(edges) + 1))
        bins[bisect.bisect_right(edges, value)] += 1

    def _edges_of(self, name: str) -> list[float]:
        if name.startswith("latency_ms."):
            return LATENCY_EDGES_MS
        return self._edges.get(name, UNIT_EDGES)

    def _tell(self, shift: Shift) -> None:
        words = "differs from" if shift.raised else "is again like"
        now, then = f"{shift.window_median:.3g}", f"{shift.reference_median:.3g}"
        self._sink.append_event(
            "drift_raised" if shift.raised else "drift_cleared",
            boot_id=self._boot_id,
            severity="warning" if shift.raised else "info",
            station=self._station,
            model=self._model,
            detail=f"{shift.metric} {words} the reference: about {now}, was {then}",
            data={
                "metric": shift.metric,
                "p_value": shift.p_value,
                "median": shift.window_median,
                "reference_median": shift.reference_median,
            },
        )
