"""Has cards of devices made, shows them, and hands them out.

| call                     | body          | answer                                                  |
|--------------------------|---------------|---------------------------------------------------------|
| `GET /v1/cards`          |               | those that are made or wait, newest first               |
| `POST /v1/cards`         | `CardRequest` | 202 and the card; it is `ready` or `failed` later       |
| `GET /v1/cards/{card}`   |               | the file, gzip; once it was sent whole it is gone       |
| `DELETE /v1/cards/{card}`|               | nothing; it is gone                                     |
"""

from collections.abc import Iterator
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from cloud.callers import Operator
from cloud.cards import Wish
from cloud.services import Parts
from cloud.sparse import gzipped
from edge.wire.base import Name, Version

router = APIRouter(prefix="/v1/cards")


class CardRequest(BaseModel):
    """What is to be made."""

    model_config = ConfigDict(extra="forbid")

    what: Literal["image", "seed"] = "image"
    profile: Name
    site: str = Field(min_length=1, max_length=64)
    device: Name
    model: Name
    version: Version
    cloud: str = Field(max_length=300)
    system: str = Field(default="trixie", max_length=32)


@router.get("")
def cards(parts: Parts, _who: Operator) -> list[dict[str, Any]]:
    """List the cards that are made or wait."""
    return [card.as_json() for card in parts.cards.cards()]


@router.post("", status_code=202)
def ask(request: CardRequest, parts: Parts, who: Operator) -> dict[str, Any]:
    """Have a card made."""
    return parts.cards.ask(Wish(**request.model_dump()), who).as_json()


@router.get("/{card}", response_class=StreamingResponse)
def download(card: str, parts: Parts, _who: Operator) -> StreamingResponse:
    """Give the file of a card that is ready, once."""
    found, path = parts.cards.file(card)

    def sent() -> Iterator[bytes]:
        yield from gzipped(path)
        parts.cards.remove(found.id)  # not reached if the download was broken off: then it may be tried again

    headers = {"Content-Disposition": f'attachment; filename="{found.file_name}"', "Cache-Control": "no-store"}
    return StreamingResponse(sent(), media_type="application/gzip", headers=headers)


@router.delete("/{card}", status_code=204)
def remove(card: str, parts: Parts, _who: Operator) -> None:
    """Remove a card that nobody needs."""
    parts.cards.remove(card)
