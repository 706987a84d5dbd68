"""What a station's decisions look like from above: counts and histograms per window of time, and drift.

Rules:
- Everything in a window can be added to that of another window, station or device.
- Telemetry is written when its window is over, also when nothing was decided in it.
- Drift is watched per bundle: a new bundle brings a new reference and begins anew.
"""

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from edge.clock import Clock
from edge.drift import DriftWatch, Shift
from edge.measures import Measure, Measures, Shares
from edge.recognised import cut, repeats, wordless
from edge.sources.heard import Heard, together
from edge.wire.base import BundleRef
from edge.wire.manifest import Manifest
from edge.wire.rows import HEARD_EDGES, LATENCY_EDGES_MS, UNIT_EDGES, DecisionRow, EventRow, Histogram, TelemetryRow


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


_LATENCY, _HEARD = "latency_ms.", "heard."
MINUTE_S = 60
DEAF_AFTER_S = 10.0
"""Nothing was heard for so long: the last minute is no longer the last one."""


@dataclass(frozen=True)
class Totals:
    """Counts of one station since it started, for those who scrape."""

    counts: dict[str, int]
    latency_ms: dict[str, tuple[list[float], list[int]]]
    """Edges and bins of each step of the pipeline."""
    measures: dict[str, Measure] = field(default_factory=dict)
    """What inputs and answers were like."""
    shares: Shares = field(default_factory=Shares)
    minute: Heard | None = None
    """What the last minute sounded like; None of a station that does not hear, or not now."""


class Observer:
    """Counts one station's decisions. Belongs to the pipeline's thread."""

    def __init__(
        self,
        station: str,
        model: str,
        sink: Sink,
        clock: Clock,
        boot_id: str,
        window_s: float,
        stretch: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._station = station
        self._model = model
        self._sink = sink
        self._clock = clock
        self._boot_id = boot_id
        self._window_s, self._stretch = window_s, stretch
        self._bundle: BundleRef | None = None
        self._edges: dict[str, list[float]] = {}
        self._drift = DriftWatch({})
        self._measures = Measures()
        self._minute: deque[Heard] = deque(maxlen=MINUTE_S)
        self._heard_at_s = clock.monotonic_s()
        self._before = Totals({}, {})
        self._begin()

    def totals(self) -> Totals:
        """Return what was counted since the start; also from another thread, which may miss the window just decided."""
        totals = _added(self._before, dict(self._counts), dict(self._bins))
        hears = self._clock.monotonic_s() - self._heard_at_s < DEAF_AFTER_S
        minute = together(list(self._minute)) if hears else None
        return replace(totals, measures=self._measures.measures(), shares=self._measures.shares(), minute=minute)

    def heard(self, seconds: Iterable[Heard]) -> None:
        """Count what each second was like that was listened to, whether anybody spoke or not."""
        for second in seconds:
            self._minute.append(second)
            self._heard_at_s = self._clock.monotonic_s()
            self._counts[_HEARD + "ms"] += round(second.seconds * 1000)
            self._counts[_HEARD + "speech_ms"] += round(second.speech_s * 1000)
            values = {
                "level_dbfs": second.level_dbfs,
                "speech_share": second.speech_share,
                "clipping": second.clipped,
            }
            self._bin({_HEARD + name: value for name, value in values.items()})

    @property
    def drifting(self) -> list[str]:
        """Metrics that differ from the reference now."""
        return self._drift.alarmed

    def decided(self, decision: DecisionRow, manifest: Manifest | None) -> None:
        """Count one decision and tell what has drifted."""
        self._know(decision.bundle, manifest)
        self._count(decision)
        self._measures.add(decision)
        values = dict(decision.metrics)
        if decision.confidence is not None:
            values["confidence"] = decision.confidence
        if decision.metrics:
            for shift in self._drift.add(values):
                self._tell(shift)
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Write the window if its time is over."""
        if self._clock.monotonic_s() - self._started_s >= self._window_s * self._stretch():
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
            histograms={name: Histogram(edges=edges, counts=bins) for name, (edges, bins) in self._bins.items()},
        )
        self._before = self.totals()
        self._begin()
        self._sink.append_telemetry(row)

    def _begin(self) -> None:
        self._started_s = self._clock.monotonic_s()
        self._started_ms = self._clock.now_ms()
        self._counts: Counter[str] = Counter({"decisions": 0})
        self._bins: dict[str, tuple[list[float], list[int]]] = {}

    def _know(self, bundle: BundleRef | None, manifest: Manifest | None) -> None:
        if bundle is self._bundle or manifest is None or bundle == self._bundle:
            return
        if self._counts["decisions"]:
            self.flush()
        self._end_drift()
        self._bundle = bundle
        self._edges = {name: list(histogram.edges) for name, histogram in manifest.reference.items()}
        self._drift = DriftWatch(manifest.reference)

    def _end_drift(self) -> None:
        """Take back what was raised against the reference of the bundle before: nobody watches that any more."""
        for metric in self._drift.alarmed:
            self._sink.append_event(
                "drift_cleared",
                boot_id=self._boot_id,
                station=self._station,
                model=self._model,
                detail=f"{metric} is compared with the reference of a new bundle from here on",
                data={"metric": metric},
            )

    def _count(self, decision: DecisionRow) -> None:
        counts = self._counts
        counts["decisions"] += 1
        counts[f"verdict.{decision.verdict}"] += 1
        counts[f"action.{decision.action}"] += 1
        if decision.reason:
            counts[f"reason.{decision.reason}"] += 1
        if decision.label:
            counts[f"label.{decision.label}"] += 1
        if decision.text is not None:
            self._count_text(decision, decision.text)
        self._bin({_LATENCY + step: value for step, value in decision.latency_ms.items()})
        self._bin(decision.metrics)
        if decision.confidence is not None:
            self._bin({"confidence": decision.confidence})

    def _count_text(self, decision: DecisionRow, text: str) -> None:
        self._counts["text.recognised"] += 1
        self._counts["text.words"] += len(text.split())
        faults = {"empty": wordless(text), "repeats": repeats(text), "cut": cut(text)}
        for name, found in faults.items():
            self._counts[f"text.{name}"] += found
        self._counts["text.low_confidence"] += decision.reason == "unsure" and not any(faults.values())

    def _bin(self, values: dict[str, float]) -> None:
        bins = self._bins
        for name, value in values.items():
            if name not in bins:
                edges = self._edges_of(name)
                bins[name] = edges, [0] * (len(edges) + 1)
            edges, counts = bins[name]
            counts[bisect_right(edges, value)] += 1

    def _edges_of(self, name: str) -> list[float]:
        if name.startswith(_LATENCY):
            return LATENCY_EDGES_MS
        if name.startswith(_HEARD):
            return HEARD_EDGES[name.removeprefix(_HEARD)]
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


def _added(before: Totals, counts: dict[str, int], bins: dict[str, tuple[list[float], list[int]]]) -> Totals:
    latency = dict(before.latency_ms)
    for name, (edges, new) in bins.items():
        if name.startswith(_LATENCY):
            step = name.removeprefix(_LATENCY)
            old = latency[step][1] if step in latency else [0] * len(new)
            latency[step] = edges, [a + b for a, b in zip(old, new, strict=True)]
    summed = {key: before.counts.get(key, 0) + counts.get(key, 0) for key in {*before.counts, *counts}}
    return Totals(summed, latency)
