"""Alerts, for machines and for the console's buttons.

| call                                | body             | answer                                       |
|-------------------------------------|------------------|----------------------------------------------|
| `GET /v1/alerts`                    |                  | alerts that fire (`all=true`: ended ones, too) and silences |
| `POST /v1/alerts/{alert}/ack`       | `AckRequest`     | the alert                                    |
| `POST /v1/alerts/silences`          | `SilenceRequest` | 201 and the silence                          |
| `DELETE /v1/alerts/silences/{id}`   |                  | 204                                          |
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from cloud.alerts.book import AlertBook
from cloud.callers import Operator
from cloud.services import Parts, Services

router = APIRouter(prefix="/v1/alerts")


class AckRequest(BaseModel):
    """Why somebody looks after it."""

    model_config = ConfigDict(extra="forbid")

    why: str = Field(max_length=2000)


class SilenceRequest(BaseModel):
    """What nobody is to be told for how long; empty names mean any."""

    model_config = ConfigDict(extra="forbid")

    rule: str = Field(default="", max_length=64)
    subject: str = Field(default="", max_length=200)
    for_s: float
    why: str = Field(max_length=2000)


@router.get("")
def alerts(
    parts: Parts,
    every: Annotated[bool, Query(alias="all")] = False,
    last: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> dict[str, Any]:
    """List alerts and silences."""
    book = _book(parts)
    return {"alerts": book.alerts(open_only=not every, last=last), "silences": book.silences()}


@router.post("/silences", status_code=201)
def silence(body: SilenceRequest, parts: Parts, who: Operator) -> dict[str, Any]:
    """Tell nobody for a time."""
    return _book(parts).silence(rule=body.rule, subject=body.subject, for_s=body.for_s, who=who, why=body.why)


@router.delete("/silences/{silence}", status_code=204)
def end_silence(silence: int, parts: Parts, who: Operator) -> None:
    """Tell again."""
    _book(parts).end_silence(silence, who=who)


@router.post("/{alert}/ack")
def acknowledge(alert: int, body: AckRequest, parts: Parts, who: Operator) -> dict[str, Any]:
    """Say that somebody looks after it."""
    return _book(parts).acknowledge(alert, who=who, why=body.why)


def _book(parts: Services) -> AlertBook:
    return AlertBook(parts.store, parts.clock)
