"""Sends the control plane's own figures to an OpenTelemetry collector, by OTLP over HTTP.

Rules:
- Only where it is set; without the extra `otel` that is a clear error at the start.
- A collector that is away costs nothing but its figures: they are sent by a thread of their own.
- Spec: opentelemetry.io/docs/specs/otlp; names as in `vitals`, so that both ways show the same; units in UCUM's words.
- All figures of one sending are read together, once.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from cloud.errors import ConfigError
from cloud.vitals import PREFIX, Figure, Vitals

FRESH_S = 1.0
"""Figures of one sending are asked for one by one, within much less."""


def start(vitals: Vitals, endpoint: str, every_s: float) -> Callable[[], None]:
    """Send figures from now on; return what ends it, after sending once more.

    Args:
        vitals: what is measured.
        endpoint: where the collector takes metrics, for example http://127.0.0.1:4318/v1/metrics.
        every_s: how often.

    Raises:
        ConfigError: the libraries are not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
    except ModuleNotFoundError as error:
        raise ConfigError(f"telemetry.otlp_endpoint: {error}", hint="pip install lineside[otel]") from error
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=endpoint), export_interval_millis=every_s * 1000)
    provider = MeterProvider([reader], resource=Resource.create({"service.name": "lineside-cloud"}))
    meter = provider.get_meter("lineside.cloud")
    latest = _Latest(vitals)
    for figure in latest.figures().values():
        create = meter.create_observable_counter if figure.kind == "counter" else meter.create_observable_gauge
        callbacks = [partial(_observe, latest, figure.name)]
        unit = "s" if figure.name.endswith("_seconds") else "1"
        create(PREFIX + figure.name, callbacks=callbacks, unit=unit, description=figure.words)
    return provider.shutdown


class _Latest:
    """All figures as they were within the last moment: reading them looks at the whole fleet."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._figures: dict[str, Figure] = {}
        self._read_s = float("-inf")

    def figures(self) -> dict[str, Figure]:
        """Return them by name."""
        now_s = self._vitals.clock.monotonic_s()
        if now_s - self._read_s > FRESH_S:
            self._figures = {figure.name: figure for figure in self._vitals.figures()}
            self._read_s = now_s
        return self._figures


def _observe(latest: _Latest, name: str, _options: Any) -> Iterable[Any]:
    from opentelemetry.metrics import Observation

    found = latest.figures().get(name)
    if found is not None:
        for label, value in found.values.items():
            yield Observation(value, {found.label: label} if found.label else {})
