"""The console's routes: each reads a view-model and draws its template.

Rules:
- Thin: what a page shows is decided in `views`, how it looks in `templates`.
- Every page answers 304 to its own last tag, which is how pages stay live (see `live`).
- Changes go to the `/v1` interface; nothing here writes.
"""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from sqlalchemy import Connection, select

from cloud.callers import caller
from cloud.console import charts, live
from cloud.console.render import Renderer
from cloud.console.views import decisions, overview, review, rollouts
from cloud.console.views.device import device_page
from cloud.console.views.model import compare_page, model_page
from cloud.console.views.models import models
from cloud.services import Parts
from cloud.tables import bundles

router = APIRouter(include_in_schema=False)

Values = dict[str, Any]
USUAL_URL = "http://127.0.0.1:8440"
"""Where commands look for the control plane unless told otherwise."""


def mount(app: FastAPI) -> None:
    """Give the application what the pages need."""
    app.state.console = Renderer()


@router.get("/")
def fleet_page(request: Request, parts: Parts) -> Response:
    """Show the work that waits, and the fleet."""

    def values(connection: Connection, now_ms: int) -> Values:
        return {"page": overview.overview(connection, now_ms), "stack": charts.stack}

    return live_page(request, parts, "overview.html", "/", values)


@router.get("/devices/{device}")
def one_device_page(
    request: Request,
    parts: Parts,
    device: str,
    only: decisions.Filter = "all",
    before: Annotated[str | None, Query(pattern=r"^\d{1,15}\.\d{1,15}$")] = None,
) -> Response:
    """Show one device."""
    at_ms, _, seq = (before or "").partition(".")
    cursor = (int(at_ms), int(seq)) if before else None

    def values(connection: Connection, now_ms: int) -> Values:
        page = device_page(connection, device, now_ms)
        if page is None:
            raise HTTPException(404, f"No device is called {device}.")
        found = decisions.page(connection, device, only=only, before=cursor)
        return {
            "page": page,
            "decisions": found,
            "only": only,
            "filters": decisions.FILTERS,
            "paged": cursor is not None,
        }

    return live_page(request, parts, "device.html", "/", values)


@router.get("/devices/{device}/decisions/{incarnation}/{seq}")
def decision_page(request: Request, parts: Parts, device: str, incarnation: str, seq: int) -> Response:
    """Show one decision with all that explains it."""

    def values(connection: Connection, _now_ms: int) -> Values:
        page = decisions.detail(connection, device, incarnation, seq)
        if page is None:
            raise HTTPException(404, f"No decision {seq} of {device} is stored here.")
        return {"page": page}

    return live_page(request, parts, "decision.html", "/", values)


@router.get("/rollouts")
def rollouts_page(request: Request, parts: Parts) -> Response:
    """List the rollouts."""

    def values(connection: Connection, _now_ms: int) -> Values:
        return {"rollouts": rollouts.all_rollouts(connection)}

    return live_page(request, parts, "rollouts.html", "/rollouts", values)


@router.get("/rollouts/{rollout}")
def rollout_page(request: Request, parts: Parts, rollout: str) -> Response:
    """Show one rollout with its evidence."""

    def values(connection: Connection, _now_ms: int) -> Values:
        page = rollouts.rollout_page(connection, rollout)
        if page is None:
            raise HTTPException(404, f"No rollout is called {rollout}.")
        return {"page": page}

    return live_page(request, parts, "rollout.html", "/rollouts", values)


@router.get("/review")
def review_page(request: Request, parts: Parts) -> Response:
    """Show the head of the review queue."""

    def values(connection: Connection, _now_ms: int) -> Values:
        queue = parts.reviews.queue(last=review.LOOKED_AT)
        labels = _labels(connection, {review.digest_of(item.body) for item in queue})
        return {"items": review.cards(queue, labels), "waiting": parts.reviews.waiting()}

    return live_page(request, parts, "review.html", "/review", values)


@router.get("/models")
def models_page(request: Request, parts: Parts) -> Response:
    """Show the registry."""
    return live_page(
        request, parts, "models.html", "/models", lambda connection, _now_ms: {"models": models(connection)}
    )


@router.get("/models/{name}")
def one_model_page(request: Request, parts: Parts, name: str) -> Response:
    """Show one model with its versions."""

    def values(connection: Connection, _now_ms: int) -> Values:
        page = model_page(connection, name, parts.registry.blobs.has)
        if page is None:
            raise HTTPException(404, f"No bundle of {name} is published.")
        return {"page": page}

    return live_page(request, parts, "model.html", "/models", values)


@router.get("/models/{name}/compare")
def two_versions_page(request: Request, parts: Parts, name: str, first: str = "", second: str = "") -> Response:
    """Hold two versions of a model side by side; those that the model's page proposes where none are named."""

    def values(connection: Connection, _now_ms: int) -> Values:
        page = compare_page(connection, name, first, second)
        if page is None:
            raise HTTPException(404, f"{name} {first} and {second} are not both published.")
        return {"page": page}

    return live_page(request, parts, "compare.html", "/models", values)


@router.get("/static/{code}/{name}")
def static_file(request: Request, code: str, name: str) -> Response:
    """Give a style sheet, script or picture of the console; `code` only makes the address change with the files."""
    renderer: Renderer = request.app.state.console
    found = renderer.static(name, code)
    if found is None:
        raise HTTPException(404, f"There is no file {name} of release {code}.")
    return found


@router.get("/favicon.ico")
def favicon(request: Request) -> Response:
    """Give the sign of the console to browsers that ask for it by its old name."""
    return static_file(request, "", "favicon.svg")


def live_page(
    request: Request,
    parts: Parts,
    template: str,
    here: str,
    values: Callable[[Connection, int], Values],
    more: str = "",
) -> Response:
    """Return a page as its caller may see it; 304 while nothing of it, nor `more`, has changed."""
    renderer: Renderer = request.app.state.console
    now_ms = parts.clock.now_ms()
    who = caller(request)
    with parts.store.read() as connection:
        tag = live.tag(connection, now_ms, f"{renderer.code} {who} {more}")
        if request.headers.get("if-none-match") == f'"{tag}"':
            return Response(status_code=304, headers=renderer.headers(now_ms, tag))
        found = values(connection, now_ms)
        badges = overview.badges(connection)
    common = {"here": here, "badges": badges, "server": _server_option(request), "caller": who}
    return renderer.page(template, {**found, **common}, now_ms=now_ms, tag=tag)


def _server_option(request: Request) -> str:
    """Return what commands must add to reach this control plane; nothing where it is at its usual address."""
    url = f"{request.url.scheme}://{request.url.netloc}"
    return "" if url == USUAL_URL else f" --server {url}"


def _labels(connection: Connection, digests: set[str]) -> dict[str, list[str]]:
    query = select(bundles.c.digest, bundles.c.manifest["labels"]).where(bundles.c.digest.in_(digests))
    return {row[0]: list(row[1] or []) for row in connection.execute(query)}
