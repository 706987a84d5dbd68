"""The control plane measures itself: scraped by Prometheus, sent to an OpenTelemetry collector."""

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from gzip import decompress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from cloud import otel
from cloud.errors import ConfigError
from cloud.vitals import Figure
from tests.cloud.process import ServeProcess
from tests.cloud.serving import serving
from tests.cloud.telemetry.test_rollups import window
from tests.cloud.world import World, event, incoming, reported, up
from tests.waiting import wait_until


def _scraped(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    """Run a server that takes OTLP metrics over HTTP and reads them."""
    taken: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            body = decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            request = ExportMetricsServiceRequest()
            request.ParseFromString(body)
            taken.append(request)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_words: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/metrics", taken
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


def _values(requests: list[Any]) -> dict[str, float]:
    found = {}
    for request in requests:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = (metric.sum if metric.HasField("sum") else metric.gauge).data_points
                    for point in points:
                        label = "".join(one.value.string_value for one in point.attributes)
                        found[metric.name + (f".{label}" if label else "")] = point.as_double
    return found


def test_prometheus_reads_what_was_ingested_and_how_the_fleet_is(world: World) -> None:
    world.enrol("box-1")
    world.enrol("box-2")
    with serving(world.services) as client:
        before = _scraped(client.get("/metrics").text)
        world.take(up("box-1", [event(1), event(2, name=7), window(3, world.clock.now_ms())]))
        world.take(incoming("box-1", "reported", reported().model_dump_json().encode()))
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    after = _scraped(answer.text)
    assert before["lineside_cloud_devices", "unknown"] == 2
    assert (after["lineside_cloud_devices", "fresh"], after["lineside_cloud_devices", "unknown"]) == (1, 1)
    assert after["lineside_cloud_ingest_rows_total", "events"] == 1
    assert after["lineside_cloud_ingest_quarantined_total", ""] == 1
    assert after["lineside_cloud_rollup_waiting", ""] == 1
    assert after["process_resident_memory_bytes", ""] > 0


def test_names_follow_the_conventions_of_prometheus(world: World) -> None:
    """https://prometheus.io/docs/practices/naming, as `promtool check metrics` holds it."""
    world.enrol("box-1")
    world.take(up("box-1", [event(1)]))
    with serving(world.services) as client:
        families = list(text_string_to_metric_families(client.get("/metrics").text))
    assert len(families) > 20
    names = [sample.name for family in families for sample in family.samples]
    for family in families:
        assert family.documentation, family.name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert {sample.name for sample in family.samples} <= {family.name, f"{family.name}_total"}
    counted = {f"{family.name}_total" for family in families if family.type == "counter"}
    assert counted == {name for name in names if name.endswith("_total")}
    small = re.compile(r"_(ms|millis\w*|us|minutes|hours|days|kb|mb|gb|bits|percent|count)(_|$)")
    assert [name for name in names if small.search(name)] == []


def test_collector_gets_the_same_figures_read_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.enrol("box-1")
    vitals, figures, read = world.services.vitals, world.services.vitals.figures, 0

    def counted() -> Iterator[Figure]:
        nonlocal read
        read += 1
        return figures()

    monkeypatch.setattr(vitals, "figures", counted)
    with collector() as (endpoint, taken):
        stop = otel.start(vitals, endpoint, every_s=3600)
        world.take(up("box-1", [event(1)]))
        world.clock.forward(2 * otel.FRESH_S)
        stop()
    assert read == 2, "once for the names, once for all that is sent"
    found = _values(taken)
    assert found["lineside_cloud_ingest_rows.events"] == 1
    assert found["lineside_cloud_devices.fresh"] == 1
    scope = taken[0].resource_metrics[0].scope_metrics[0]
    assert {metric.unit for metric in scope.metrics if metric.name.endswith("_seconds")} == {"s"}
    name = taken[0].resource_metrics[0].resource.attributes
    assert "lineside-cloud" in {one.value.string_value for one in name}


def test_missing_library_is_named_with_its_extra(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.metrics", None)
    with pytest.raises(ConfigError) as caught:
        otel.start(world.services.vitals, "http://127.0.0.1:9/", 60)
    assert "lineside[otel]" in caught.value.hint


def test_control_plane_sends_by_setting_and_stops_in_order(tmp_path: Any) -> None:
    with collector() as (endpoint, taken):
        config = tmp_path / "cloud.toml"
        config.write_text(f'[telemetry]\notlp_endpoint = "{endpoint}"\notlp_every_s = 1.0\n')
        with ServeProcess(tmp_path / "data", "--config", str(config), "--broker-port", "0") as served:
            wait_until(lambda: bool(taken), 30, "figures")
            assert served.stop() == 0
    assert "lineside_cloud_devices.fresh" in _values(taken)
