"""The page on which a card is asked for and downloaded.

Rules:
- Nothing here waits: what can be made is looked for beside, and the page follows until it is known.
- Thin, as all pages: what may be chosen comes from the registry and from `lineside-flash`, what is asked for goes to
  the interface.
"""

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from cloud.cards import SYSTEMS
from cloud.console import pages
from cloud.services import Parts, Services

router = APIRouter(include_in_schema=False)


@router.get("/cards")
def cards_page(request: Request, parts: Parts) -> Response:
    """Let an operator have a card made."""
    made, known = parts.cards.cards(), parts.cards.known()

    def values(_connection: Connection, _now_ms: int) -> pages.Values:
        bundles = [view for view in parts.registry.bundles() if view.ref.kind == "model" and view.has_file]
        bundles.sort(key=lambda view: (view.ref.name, not view.is_default))
        return {
            "known": known,
            "bundles": [view for view in bundles if view.state != "retired"],
            "sites": sorted({device.site for device in parts.fleet.devices()}),
            "systems": SYSTEMS,
            "cards": made,
            "address": _address(request, parts),
        }

    return pages.live_page(request, parts, "cards.html", "/cards", values, f"{made} {known}")


def _address(request: Request, parts: Services) -> str:
    """Return where devices reach us, as far as it is known: by the name that this person uses, at the devices' port."""
    port = parts.config.device_port
    host = request.url.hostname or ""
    return f"https://{host}:{port}" if port and host not in ("127.0.0.1", "localhost", "::1") else ""
