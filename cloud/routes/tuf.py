"""Gives devices the signed metadata and the bundles, resumable by Range."""

from fastapi import APIRouter
from fastapi.responses import FileResponse

from cloud.errors import NotFoundError
from cloud.services import Parts

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
