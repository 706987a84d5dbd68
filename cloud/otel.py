"""Sends the control plane's own figures to an OpenTelemetry collector, by OTLP over HTTP.

Rules:
- Only where it is set; without the extra `otel` that is a clear error at the start.
- A collector that is away costs nothing but its figures: they are sent by a thread of their own.
- Spec: opentelemetry.io/docs/specs/otlp; names as in `vitals`, so that both ways show the same.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from cloud.errors import ConfigError
from cloud.vitals import PREFIX, Figure, Vitals


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
    for figure in vitals.figures():
        create = meter.create_observable_counter if figure.kind == "counter" else meter.create_observable_gauge
        create(PREFIX + figure.name, callbacks=[partial(_observe, vitals, figure.name)], description=figure.words)
    return provider.shutdown


def _observe(vitals: Vitals, name: str, _options: Any) -> Iterable[Any]:
    from opentelemetry.metrics import Observation

    found: Figure | None = next((one for one in vitals.figures() if one.name == name), None)
    if found is not None:
        for label, value in found.values.items():
            yield Observation(value, {found.label: label} if found.label else {})
