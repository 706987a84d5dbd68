"""Gives devices the signed metadata, the bundles, and deltas between them, resumable by Range."""

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from cloud.errors import NotFoundError
from cloud.services import Parts
from edge.wire.base import Digest

router = APIRouter(prefix="/tuf")

IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable"}


@router.get("/metadata/{file}")
def metadata(file: str, parts: Parts) -> FileResponse:
    """Give one metadata file."""
    path = parts.registry.repository.metadata_path(file)
    headers = {"Cache-Control": "no-cache"} if file == "timestamp.json" else IMMUTABLE
    return FileResponse(path, media_type="application/json", headers=headers)


@router.get("/targets/{file}")
def target(file: str, parts: Parts) -> FileResponse:
    """Give one bundle, named `{sha256}.{name}-{version}.lsb`."""
    digest, _, path = file.partition(".")
    if parts.registry.target_path(digest) != path:
        raise NotFoundError(f"no bundle is called {file[:200]!r}")
    return FileResponse(parts.registry.blobs.path(digest), media_type="application/octet-stream", headers=IMMUTABLE)


@router.get("/deltas/{old}/{new}")
def delta(old: Digest, new: Digest, parts: Parts) -> Response:
    """Give the delta from one bundle of a model to another: 204 if it is not worth it, 503 while it is being made."""
    registry = parts.registry
    first, second = registry.target_path(old), registry.target_path(new)
    if first is None or second is None or _model(first) != _model(second):
        raise NotFoundError(f"no delta from {old[:12]}… to {new[:12]}… can be made")
    made = registry.deltas.get(old, new)
    if made is None:
        return Response(status_code=204)
    return FileResponse(made, media_type="application/octet-stream", headers={"Cache-Control": "public, max-age=86400"})


def _model(path: str) -> str:
    return path.rpartition("-")[0]
