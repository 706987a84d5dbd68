"""Takes new bundles with their signed list, and shows what is published."""

from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Response, UploadFile
from pydantic import BaseModel

from cloud.callers import Operator
from cloud.services import Parts
from cloud.tuf_repository import MAX_TARGETS_BYTES

router = APIRouter(prefix="/v1/bundles")


class Approval(BaseModel):
    """Why a bundle becomes the default."""

    why: str = ""


@router.get("")
def bundles(parts: Parts, name: str | None = None) -> list[dict[str, Any]]:
    """List the published bundles."""
    return [view.as_json() for view in parts.registry.bundles(name)]


@router.get("/targets")
def targets(parts: Parts) -> Response:
    """Give the current signed list, for `models publish` to add to."""
    return Response(parts.registry.repository.targets_bytes(), media_type="application/json")


@router.get("/{name}/{version}")
def bundle(name: str, version: str, parts: Parts) -> dict[str, Any]:
    """Show one bundle with its manifest."""
    view = parts.registry.bundle(name, version)
    return {**view.as_json(), "manifest": view.manifest}


@router.post("", status_code=201)
def publish(
    parts: Parts,
    who: Operator,
    bundle: Annotated[UploadFile, File()],
    targets: Annotated[UploadFile, File()],
    default: Annotated[bool, Form()] = False,
) -> dict[str, Any]:
    """Publish a bundle."""
    signed = targets.file.read(MAX_TARGETS_BYTES + 1)
    return parts.registry.publish(bundle.file, signed, who=who, default=default).as_json()


@router.post("/{name}/{version}/default")
def make_default(name: str, version: str, approval: Approval, parts: Parts, who: Operator) -> dict[str, Any]:
    """Make a bundle the default of its model."""
    parts.registry.set_default(name, version, who=who, why=approval.why)
    return parts.registry.bundle(name, version).as_json()
