"""Telemetry over time: a chart for each metric of a stage, of what was chosen.

Rules:
- A distribution is drawn by its median; its 95th percentile stands below with the bounds that are certain.
- A count is drawn as its share of the decisions.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from cloud import tables
from cloud.console import charts
from cloud.telemetry.queries import Question, ask, metrics
from cloud.telemetry.tables import metric_series

SPANS = (("1 h", 1), ("24 h", 24), ("7 d", 168), ("90 d", 2160))
MAX_CHARTS = 40
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Choice:
    """What is looked at; None for any."""

    stage: str | None
    hours: int
    device: str | None
    site: str | None
    version: str | None


@dataclass(frozen=True)
class Chart:
    """One metric."""

    metric: str
    kind: str
    unit: str
    count: int
    trend: charts.Trend
    p95: dict[str, Any] | None
    share: float | None


@dataclass(frozen=True)
class TelemetryPage:
    """Everything on the page."""

    stages: list[str]
    devices: list[str]
    sites: list[str]
    versions: list[str]
    charts: list[Chart]
    choice: Choice


def telemetry_page(connection: Connection, choice: Choice, keeps_ms: dict[int, int], now_ms: int) -> TelemetryPage:
    """Return the page; without a stage, of the first that there is."""
    known = metrics(connection, device=choice.device)
    stages = list(dict.fromkeys(metric["stage"] for metric in known))
    stage = choice.stage if choice.stage in stages else next(iter(stages), None)
    chosen = Choice(stage, choice.hours, choice.device, choice.site, choice.version)
    wanted = [metric for metric in known if metric["stage"] == stage][:MAX_CHARTS]
    found = [_chart(connection, metric, chosen, keeps_ms, now_ms) for metric in wanted]
    d, s = tables.devices.c, metric_series.c
    return TelemetryPage(
        stages=stages,
        devices=list(connection.execute(select(d.device).order_by(d.device)).scalars()),
        sites=list(connection.execute(select(d.site).distinct().order_by(d.site)).scalars()),
        versions=[v for v in connection.execute(select(s.version).distinct().order_by(s.version)).scalars() if v],
        charts=[chart for chart in found if chart is not None],
        choice=chosen,
    )


def _chart(
    connection: Connection, metric: dict[str, Any], choice: Choice, keeps_ms: dict[int, int], now_ms: int
) -> Chart | None:
    question = Question(
        metric["metric"],
        now_ms - choice.hours * HOUR_MS,
        now_ms + 1,
        device=choice.device,
        site=choice.site,
        version=choice.version,
        stage=choice.stage,
        shares=(0.5, 0.95),
    )
    groups = ask(connection, question, keeps_ms=keeps_ms, now_ms=now_ms)["groups"]
    if not groups:
        return None
    points = [(point["at_ms"], _drawn(point)) for point in groups[0]["points"]]
    trend = charts.trend([(at_ms, value) for at_ms, value in points if value is not None])
    if trend is None:
        return None
    total = groups[0]["total"]
    p95 = total.get("percentiles", {}).get("95")
    return Chart(metric["metric"], metric["kind"], metric["unit"], total["count"], trend, p95, total.get("share"))


def _drawn(point: dict[str, Any]) -> float | None:
    if "percentiles" in point:
        return float(point["percentiles"]["50"]["value"])
    return float(point["count"]) if point["share"] is None else float(point["share"])
