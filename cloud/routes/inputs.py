"""Takes pictures and sounds from devices by their digest, and shows them to people."""

import re
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from sqlalchemy import Connection, select
from starlette.background import BackgroundTask

from cloud import tables
from cloud.access import Device
from cloud.erasure import is_erased
from cloud.errors import NotFoundError, UnavailableError
from cloud.services import Parts, Services
from cloud.store import insert_ignore

router = APIRouter(prefix="/v1/inputs")

MEDIA_TYPE = re.compile(r"(image/(jpeg|png|webp|bmp|tiff|gif)|audio/(wav|x-wav|flac|ogg|mpeg))")
"""Shown as what they are; anything else only as a file to save, so that no device can put a page before a reviewer."""
CACHE_S = 3600
"""Content under a digest never changes, but it may be erased on request: a browser keeps it for a sitting."""


@router.put("/{digest}", status_code=201)
async def put_input(digest: str, request: Request, response: Response, parts: Parts, sender: Device) -> dict[str, Any]:
    """Keep the bytes of one input: 201 when they are new, 200 when they are here already."""
    await run_in_threadpool(_check_wanted, parts, sender, digest)
    stated = request.headers.get("content-type", "").split(";")[0].strip().lower()
    media_type = stated if MEDIA_TYPE.fullmatch(stated) else "application/octet-stream"
    _, size_bytes = await parts.inputs.put_stream(request.stream(), digest=digest)
    row = {"digest": digest, "media_type": media_type, "size_bytes": size_bytes, "device": sender}
    new = await run_in_threadpool(_keep, parts, row)
    response.status_code = 201 if new else 200
    return {"digest": digest, "size_bytes": size_bytes, "new": new}


@router.get("/{digest}")
def get_input(digest: str, parts: Parts) -> FileResponse:
    """Show one input."""
    query = select(tables.inputs.c.media_type).where(tables.inputs.c.digest == digest)
    with parts.store.read() as connection:
        media_type = connection.execute(query).scalar()
    if media_type is None:
        raise NotFoundError(f"input {digest[:12]}… has not arrived")
    plain = media_type == "application/octet-stream"
    path, give_back = parts.inputs.lend(digest)
    return FileResponse(
        path,
        background=BackgroundTask(give_back),
        media_type=media_type,
        filename=digest if plain else None,
        headers={
            "Cache-Control": f"private, max-age={CACHE_S}, immutable",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )


def _check_wanted(parts: Services, sender: str, digest: str) -> None:
    with parts.store.read() as connection:
        _refuse_erased(connection, sender, digest)


def _keep(parts: Services, row: dict[str, Any]) -> bool:
    digest, sender = row["digest"], row["device"]
    with parts.store.write() as connection:
        inputs = tables.inputs.c
        try:
            _refuse_erased(connection, sender, digest)
        except UnavailableError:
            if connection.execute(select(inputs.digest).where(inputs.digest == digest)).first() is None:
                parts.inputs.remove(digest)
            raise
        if not parts.inputs.has(digest):  # another device's copy of it was erased just now
            raise UnavailableError(f"input {digest[:12]}… was removed meanwhile", hint="send it again")
        insert_ignore(connection, tables.input_senders, [{"digest": digest, "device": sender}])
        return insert_ignore(connection, tables.inputs, [{**row, "received_at_ms": parts.clock.now_ms()}]) > 0


def _refuse_erased(connection: Connection, sender: str, digest: str) -> None:
    # A copy that was on its way, or content that is kept anew and whose decision has not come yet: it may come again.
    if is_erased(connection, sender, digest):
        raise UnavailableError(f"input {digest[:12]}… was erased on request of {sender}")
