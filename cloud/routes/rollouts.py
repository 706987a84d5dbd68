"""Starts, shows and moves rollouts.

| call                                | body                      | answer                                        |
|-------------------------------------|---------------------------|-----------------------------------------------|
| `GET /v1/rollouts`                  |                           | `{"rollouts": [...]}`, newest first           |
| `POST /v1/rollouts`                 | `StartRequest`            | 201 and the rollout                           |
| `GET /v1/rollouts/{id}`             |                           | the rollout with its log                      |
| `POST /v1/rollouts/{id}/pause`      | `MoveRequest`             | the rollout                                   |
| `POST /v1/rollouts/{id}/resume`     | `MoveRequest`             | the rollout                                   |
| `POST /v1/rollouts/{id}/abort`      | `MoveRequest`             | the rollout                                   |
"""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from cloud.callers import Operator
from cloud.errors import ConfigError, InvalidError
from cloud.plans import PlanShape, parse_plan
from cloud.rollout_book import RolloutBook
from cloud.services import Parts
from edge.wire.base import Name, Version

router = APIRouter(prefix="/v1/rollouts")

MAX_PLAN_CHARS = 256 * 1024
"""A plan that names ten thousand devices."""


class StartRequest(BaseModel):
    """What to roll out, and how."""

    model_config = ConfigDict(extra="forbid")

    model: Name
    version: Version
    plan: str = Field(default="", max_length=MAX_PLAN_CHARS)
    """Text of a plan file, TOML or JSON; empty for the default plan."""
    why: str = Field(default="", max_length=2000)
    unaudited: str = Field(default="", max_length=2000)
    """Why it may be rolled out without an audit that passed; it is kept."""


class MoveRequest(BaseModel):
    """Why it is paused, resumed or aborted; it is kept."""

    model_config = ConfigDict(extra="forbid")

    why: str = Field(min_length=1, max_length=2000)


@router.get("")
def rollouts(parts: Parts, last: int = 50) -> dict[str, Any]:
    """List the newest rollouts."""
    return {"rollouts": [record.as_json() for record in RolloutBook.of(parts).rollouts(last=min(max(last, 1), 500))]}


@router.post("", status_code=201)
def start(request: StartRequest, parts: Parts, who: Operator) -> dict[str, Any]:
    """Start a rollout."""
    shape = _shape(request.plan)
    started = RolloutBook.of(parts).start(
        request.model, request.version, shape, who=who, why=request.why, unaudited=request.unaudited
    )
    return started.as_json()


@router.get("/{rollout}")
def rollout(rollout: str, parts: Parts) -> dict[str, Any]:
    """Show one rollout with its log."""
    book = RolloutBook.of(parts)
    return {**book.rollout(rollout).as_json(), "log": book.lines(rollout)}


@router.post("/{rollout}/pause")
def pause(rollout: str, request: MoveRequest, parts: Parts, who: Operator) -> dict[str, Any]:
    """Let it take no step forward."""
    return RolloutBook.of(parts).pause(rollout, who=who, why=request.why).as_json()


@router.post("/{rollout}/resume")
def resume(rollout: str, request: MoveRequest, parts: Parts, who: Operator) -> dict[str, Any]:
    """Let it go on."""
    return RolloutBook.of(parts).resume(rollout, who=who, why=request.why).as_json()


@router.post("/{rollout}/abort")
def abort(rollout: str, request: MoveRequest, parts: Parts, who: Operator) -> dict[str, Any]:
    """Take it back from all devices."""
    return RolloutBook.of(parts).abort(rollout, who=who, why=request.why).as_json()


def _shape(text: str) -> PlanShape:
    try:
        return parse_plan(text)
    except ConfigError as error:
        raise InvalidError(str(error), hint=error.hint) from error
