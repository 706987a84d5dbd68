"""Retrainings and dataset versions.

| call                        | body             | answer                                            |
|-----------------------------|------------------|---------------------------------------------------|
| `GET /v1/retrainings`       |                  | retrainings, newest first                         |
| `POST /v1/retrainings`      | `RetrainRequest` | 201 and the retraining; the same key gives it again |
| `GET /v1/datasets`          |                  | dataset versions, newest first                    |
| `POST /v1/datasets`         | `ExportRequest`  | 201 and the version of all answers up to now      |
| `GET /v1/datasets/{digest}` |                  | the version's lines of JSON                       |
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from cloud.callers import Operator
from cloud.services import Parts
from edge.wire.base import Name

router = APIRouter(prefix="/v1")


class RetrainRequest(BaseModel):
    """What to train again, and why; `key` makes asking again harmless."""

    model_config = ConfigDict(extra="forbid")

    model: Name
    reason: str = Field(min_length=1, max_length=2000)
    key: str = Field(min_length=8, max_length=100)


class ExportRequest(BaseModel):
    """Of which model."""

    model_config = ConfigDict(extra="forbid")

    model: Name


@router.get("/retrainings")
def retrainings(parts: Parts, last: Annotated[int, Query(ge=1, le=1000)] = 50) -> dict[str, Any]:
    """List retrainings."""
    return {"retrainings": parts.retrainings.rows(last=last)}


@router.post("/retrainings", status_code=201)
def retrain(body: RetrainRequest, parts: Parts, who: Operator) -> dict[str, Any]:
    """Ask for a retraining; the next look starts it."""
    return parts.retrainings.ask(body.model, who=who, reason=body.reason, key=body.key)


@router.get("/datasets")
def datasets(parts: Parts, model: Annotated[str | None, Query(max_length=64)] = None) -> dict[str, Any]:
    """List dataset versions."""
    return {"datasets": [one.as_json() for one in parts.retrainings.datasets.versions(model)]}


@router.post("/datasets", status_code=201)
def export(body: ExportRequest, parts: Parts, who: Operator) -> dict[str, Any]:
    """Make a dataset version of all answers up to now."""
    return parts.retrainings.datasets.export(body.model, who=who).as_json()


@router.get("/datasets/{digest}")
def dataset(digest: str, parts: Parts) -> FileResponse:
    """Give a dataset version."""
    found = parts.retrainings.datasets.version(digest)
    path = parts.retrainings.datasets.blobs.path(found.digest)
    return FileResponse(path, media_type="application/jsonl", filename=f"{found.model}-{found.digest[:12]}.jsonl")
