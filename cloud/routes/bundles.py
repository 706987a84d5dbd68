"""Takes new bundles with their signed list, shows and compares what is published, and moves versions on."""

from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from cloud.callers import Operator
from cloud.comparing import compare
from cloud.services import Parts
from cloud.tuf_repository import MAX_TARGETS_BYTES

router = APIRouter(prefix="/v1/bundles")


class Approval(BaseModel):
    """Why a bundle becomes the default, or is approved."""

    why: str = Field(default="", max_length=2000)
    unaudited: str = Field(default="", max_length=2000)
    """Why it may be without an audit that passed."""


class Reason(BaseModel):
    """Why something is done; it is kept."""

    model_config = ConfigDict(extra="forbid")

    why: str = Field(min_length=1, max_length=2000)


class ApprovalWithReason(Approval):
    """Why a bundle is approved; it is kept."""

    why: str = Field(min_length=1, max_length=2000)


class Collection(BaseModel):
    """What is to be removed."""

    model_config = ConfigDict(extra="forbid")

    why: str = Field(default="", max_length=2000)
    dry_run: StrictBool = False
    keep_last: int | None = Field(default=None, ge=1)


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


@router.get("/{name}/{first}/compare/{second}")
def comparison(name: str, first: str, second: str, parts: Parts) -> dict[str, Any]:
    """Hold two versions of a model side by side."""
    one, other = (parts.registry.bundle(name, version) for version in (first, second))
    found = compare(one.manifest, other.manifest, (one.ref.size_bytes, other.ref.size_bytes))
    return {"name": name, "first": one.as_json(), "second": other.as_json(), **found.as_json()}


@router.post("", status_code=201)
def publish(
    parts: Parts,
    who: Operator,
    bundle: Annotated[UploadFile, File()],
    targets: Annotated[UploadFile, File()],
    default: Annotated[bool, Form()] = False,
    unaudited: Annotated[str, Form(max_length=2000)] = "",
) -> dict[str, Any]:
    """Publish a bundle."""
    signed = targets.file.read(MAX_TARGETS_BYTES + 1)
    return parts.registry.publish(bundle.file, signed, who=who, default=default, unaudited=unaudited).as_json()


@router.post("/gc")
def collect(request: Collection, parts: Parts, who: Operator) -> dict[str, Any]:
    """Remove the files of versions that nobody can need any more."""
    done = parts.collector.collect(who=who, why=request.why, dry_run=request.dry_run, keep_last=request.keep_last)
    return done.as_json()


@router.post("/{name}/{version}/default")
def make_default(name: str, version: str, approval: Approval, parts: Parts, who: Operator) -> dict[str, Any]:
    """Make a bundle the default of its model."""
    parts.registry.set_default(name, version, who=who, why=approval.why, unaudited=approval.unaudited)
    return parts.registry.bundle(name, version).as_json()


@router.post("/{name}/{version}/approve")
def approve(name: str, version: str, approval: ApprovalWithReason, parts: Parts, who: Operator) -> dict[str, Any]:
    """Approve a version."""
    return parts.registry.approve(name, version, who=who, why=approval.why, unaudited=approval.unaudited).as_json()


@router.post("/{name}/{version}/retire")
def retire(name: str, version: str, reason: Reason, parts: Parts, who: Operator) -> dict[str, Any]:
    """Retire a version."""
    return parts.registry.retire(name, version, who=who, why=reason.why).as_json()


@router.post("/{name}/{version}/file")
def put_back(
    name: str, version: str, parts: Parts, who: Operator, bundle: Annotated[UploadFile, File()]
) -> dict[str, Any]:
    """Take in the file of a version whose file was removed."""
    return parts.registry.put_back(bundle.file, name, version, who=who).as_json()
