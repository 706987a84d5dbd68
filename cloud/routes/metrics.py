"""Metrics of the fleet over time, for machines.

| call                    | query                                                      | answer                        |
|-------------------------|------------------------------------------------------------|-------------------------------|
| `GET /v1/metrics`       | `stage`, `device`                                          | which metrics there are       |
| `GET /v1/metrics/query` | `metric`, `from_ms`, `to_ms`, filters, `by`, `step_s`, `p` | groups with points and totals |
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from cloud.services import Parts
from cloud.telemetry.queries import By, Question, ask, metrics
from cloud.telemetry.rollups import keeps_ms

router = APIRouter(prefix="/v1/metrics")

LAST_MS = 3_600_000
Text = Annotated[str | None, Query(max_length=64)]


@router.get("")
def list_metrics(parts: Parts, stage: Text = None, device: Text = None) -> dict[str, Any]:
    """List the metrics that devices have sent."""
    with parts.store.read() as connection:
        return {"metrics": metrics(connection, stage=stage, device=device)}


@router.get("/query")
def query_metric(
    parts: Parts,
    metric: Annotated[str, Query(max_length=64)],
    from_ms: int | None = None,
    to_ms: int | None = None,
    device: Text = None,
    site: Text = None,
    model: Text = None,
    version: Text = None,
    station: Text = None,
    stage: Text = None,
    by: Annotated[list[By] | None, Query(max_length=6)] = None,
    step_s: int | None = None,
    p: Annotated[list[float] | None, Query(max_length=9)] = None,
) -> dict[str, Any]:
    """Give one metric over time; without times, the last hour."""
    now_ms = parts.clock.now_ms()
    until_ms = now_ms + 1 if to_ms is None else to_ms
    question = Question(
        metric=metric,
        from_ms=until_ms - LAST_MS if from_ms is None else from_ms,
        to_ms=until_ms,
        device=device,
        site=site,
        model=model,
        version=version,
        station=station,
        stage=stage,
        by=tuple(dict.fromkeys(by or ())),
        step_s=step_s,
        shares=tuple(percent / 100 for percent in p or (50.0, 95.0, 99.0)),
    )
    with parts.store.read() as connection:
        return ask(connection, question, keeps_ms=keeps_ms(parts.config.telemetry), now_ms=now_ms)
