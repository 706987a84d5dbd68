"""The device's figures for Prometheus, in its text format, made when they are asked for.

Rules:
- Counters only grow while the daemon runs, and begin at 0 with it, as Prometheus expects; those of what was dropped
  begin with the record.
- Names and labels are those of the telemetry: what goes up and what is scraped are the same counts.
- What inputs and answers are like has fixed edges and a bounded number of labels (`measures.py`).
"""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from edge.measures import RECENT
from edge.wire.messages import Reported

if TYPE_CHECKING:
    from edge.observe import Totals

MEASURES = {
    "brightness": ("input_brightness_ratio", "mean gray level of a picture"),
    "contrast": ("input_contrast_ratio", "standard deviation of its gray levels"),
    "saturation": ("input_saturation_ratio", "mean saturation of its colours"),
    "sharpness": ("input_sharpness", "variance of its Laplacian, gray levels squared"),
    "level_dbfs": ("input_level_dbfs", "root mean square of a sound, of full scale"),
    "peak_dbfs": ("input_peak_dbfs", "its loudest sample"),
    "clipping": ("input_clipping_ratio", "share of its samples that are clipped"),
    "speech_share": ("input_speech_ratio", "share of a segment that is speech"),
    "duration_s": ("input_duration_seconds", "length of a segment or file of sound"),
    "ood": ("input_strangeness", "how unlike it is to what the bundle was made for"),
    "confidence": ("output_confidence_ratio", "calibrated probability of the answer"),
}
"""Name and meaning of each measure of `measures.EDGES`."""


def exposition(
    reported: Reported, totals: "Mapping[str, Totals]", stuck: Collection[str], *, connected: bool | None
) -> bytes:
    """Return the text for one scrape.

    Args:
        reported: the device's state now.
        totals: counts per station since the daemon started.
        stuck: stations that do not turn.
        connected: whether the control plane is reached; None where none is configured.
    """
    registry = CollectorRegistry()
    registry.register(_Figures(reported, totals, stuck, connected=connected))
    return generate_latest(registry)


class _Figures:
    """One scrape's metrics."""

    def __init__(
        self, reported: Reported, totals: "Mapping[str, Totals]", stuck: Collection[str], *, connected: bool | None
    ) -> None:
        self._reported, self._totals = reported, totals
        self._stuck, self._connected = stuck, connected

    def collect(self) -> Iterable[Metric]:
        """Give every metric."""
        yield from self._device()
        yield from self._dropped()
        yield from self._stations()
        yield from self._measures()
        yield from self._shares()
        yield from self._heard()

    def _device(self) -> Iterable[Metric]:
        health = self._reported.health
        for name, words, value in (
            ("uptime_seconds", "since the daemon started", health.uptime_s),
            ("memory_bytes", "PSS of the daemon and its children", health.memory_bytes),
            ("disk_free_bytes", "on the disk that holds the record", health.disk_free_bytes),
            ("outbox_rows", "rows that the control plane has not stored", health.outbox_rows),
            ("outbox_bytes", "their size", health.outbox_bytes),
            ("uploads_waiting", "kept inputs that wait to be sent", health.uploads_waiting),
        ):
            yield GaugeMetricFamily(f"lineside_{name}", words, value=value)
        if self._connected is not None:
            yield GaugeMetricFamily(
                "lineside_link_connected", "1 while the broker is reached", value=float(self._connected)
            )
        if health.oldest_unsent_ms is not None:
            age_s = max(0, self._reported.sent_at_ms - health.oldest_unsent_ms) / 1000
            yield GaugeMetricFamily("lineside_oldest_unsent_seconds", "age of the oldest unsent row", value=age_s)
        cpu_s = health.extra.get("cpu_s")
        if isinstance(cpu_s, float | int):
            yield CounterMetricFamily("lineside_cpu_seconds", "of the daemon and its children", value=cpu_s)
        if health.temperature_c is not None:
            yield GaugeMetricFamily("lineside_temperature_celsius", "hottest sensor", value=health.temperature_c)

    def _dropped(self) -> Iterable[Metric]:
        found = self._reported.health.extra.get("dropped", {})
        for name, words in (("dropped", "gone from the record"), ("left_out", "not written, for the day's budget")):
            family = CounterMetricFamily(f"lineside_{name}", words, labels=["kind"])
            for kind, count in sorted(found.get(name, {}).items()):
                family.add_metric([kind], count)
            yield family

    def _stations(self) -> Iterable[Metric]:
        serving = GaugeMetricFamily(
            "lineside_serving", "1 for the bundle that decides", labels=["station", "model", "version"]
        )
        trouble = GaugeMetricFamily(
            "lineside_station_ok", "0 while a station is in trouble or stands still", labels=["station"]
        )
        counts = CounterMetricFamily("lineside_decisions", "decisions, by what", labels=["station", "by", "value"])
        latency = HistogramMetricFamily("lineside_step_milliseconds", "time per step", labels=["station", "step"])
        for name, station in self._reported.stations.items():
            trouble.add_metric([name], 0 if station.problem or name in self._stuck else 1)
            if station.serving:
                serving.add_metric([name, station.serving.name, station.serving.version], 1)
            total = self._totals.get(name)
            if total is None:
                continue
            for key, count in sorted(total.counts.items()):
                by, _, value = key.partition(".")
                if by == "heard":
                    continue  # times, not decisions
                counts.add_metric([name, by, value], count)
            for step, (edges, bins) in sorted(total.latency_ms.items()):
                latency.add_metric([name, step], _cumulative(edges, bins), None)
        yield from (serving, trouble, counts, latency)

    def _measures(self) -> Iterable[Metric]:
        for measure, (name, words) in MEASURES.items():
            family = HistogramMetricFamily(f"lineside_{name}", words, labels=["station"])
            for station, total in sorted(self._totals.items()):
                if found := total.measures.get(measure):
                    family.add_metric([station], _cumulative(found.edges, found.bins), found.total)
            yield family

    def _shares(self) -> Iterable[Metric]:
        labels = GaugeMetricFamily(
            "lineside_output_label_ratio", f"of the last {RECENT} decisions", labels=["station", "label"]
        )
        deferred = GaugeMetricFamily(
            "lineside_output_deferred_ratio", f"of the last {RECENT} decisions", labels=["station"]
        )
        empty = GaugeMetricFamily(
            "lineside_output_empty_ratio", "of the last sounds, those without a word", labels=["station"]
        )
        for station, total in sorted(self._totals.items()):
            for label, share in sorted(total.shares.labels.items()):
                labels.add_metric([station, label], share)
            for family, value in ((deferred, total.shares.deferred), (empty, total.shares.empty)):
                if value is not None:
                    family.add_metric([station], value)
        yield from (labels, deferred, empty)

    def _heard(self) -> Iterable[Metric]:
        listened = CounterMetricFamily("lineside_heard_seconds", "time that was listened to", labels=["station"])
        spoken = CounterMetricFamily("lineside_heard_speech_seconds", "of it, with speech", labels=["station"])
        share, level, clipping = (
            GaugeMetricFamily(f"lineside_heard_{name}", f"{words} the last minute", labels=["station"])
            for name, words in (
                ("speech_ratio", "share of speech of"),
                ("level_dbfs", "level of"),
                ("clipping_ratio", "share of clipped samples of"),
            )
        )
        for station, total in sorted(self._totals.items()):
            for counter, key in ((listened, "heard.ms"), (spoken, "heard.speech_ms")):
                if "heard.ms" in total.counts:
                    counter.add_metric([station], total.counts.get(key, 0) / 1000)
            if (minute := total.minute) is not None:
                share.add_metric([station], minute.speech_share)
                level.add_metric([station], minute.level_dbfs)
                clipping.add_metric([station], minute.clipped)
        yield from (listened, spoken, share, level, clipping)


def _cumulative(edges: list[float], bins: list[int]) -> list[tuple[str, float]]:
    below, found = 0, []
    for edge, count in zip([*(f"{edge:g}" for edge in edges), "+Inf"], bins, strict=True):
        below += count
        found.append((edge, float(below)))
    return found
