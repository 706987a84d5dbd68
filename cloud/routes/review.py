"""The review queue for machines and for the console's keys."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cloud.callers import Calling, Operator
from cloud.review import Answer, Part
from cloud.services import Parts

router = APIRouter(prefix="/v1/review")


class AnswerRequest(BaseModel):
    """A person's answer."""

    answer: Answer
    label: str | None = Field(default=None, max_length=64)
    reviewer: str = Field(default="", max_length=64)
    """Who answers; where people sign in, the answer is signed with their name whatever stands here."""
    note: str = Field(default="", max_length=4000)


@router.get("/queue")
def queue(parts: Parts, last: Annotated[int, Query(ge=1, le=1000)] = 50, part: Part | None = None) -> dict[str, Any]:
    """List what waits, in the order in which it should be looked at: all of it, the deferred, or the audits."""
    items = parts.reviews.queue(last=last, part=part)
    return {"waiting": parts.reviews.waiting(), "items": [item.as_json() for item in items]}


@router.get("/next")
def next_item(parts: Parts) -> dict[str, Any]:
    """Give the decision to look at now; `item` is null when nothing waits."""
    item = parts.reviews.next()
    return {"waiting": parts.reviews.waiting(), "item": item.as_json() if item else None}


@router.post("/{device}/{incarnation}/{seq}", status_code=201)
def answer(
    device: str, incarnation: str, seq: int, request: AnswerRequest, parts: Parts, caller: Calling
) -> dict[str, Any]:
    """Keep a person's answer, and give the next decision at once."""
    number = parts.reviews.answer(
        device,
        incarnation,
        seq,
        answer=request.answer,
        reviewer=caller.name if caller.is_known else request.reviewer,
        label=request.label,
        note=request.note,
    )
    return {"id": number, **next_item(parts)}


@router.delete("/answers/{answer}")
def undo(answer: int, parts: Parts, who: Operator) -> dict[str, Any]:
    """Take back an answer that was a slip of the finger."""
    parts.reviews.undo(answer, who=who)
    return {"waiting": parts.reviews.waiting()}
