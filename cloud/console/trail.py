"""The console's page of the audit log: who changed what, and why, newest first."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection

from cloud import audit
from cloud.console.pages import Values, live_page
from cloud.services import Parts

router = APIRouter(include_in_schema=False)

SHOWN = 200
Text = Annotated[str, Query(max_length=64)]


@router.get("/audit")
def audit_page(request: Request, parts: Parts, who: Text = "", what: Text = "") -> Response:
    """Show the newest changes, of one person or kind if it is said."""

    def values(connection: Connection, _now_ms: int) -> Values:
        rows = audit.rows(connection, last=SHOWN, who=who or None, what=what or None)
        return {
            "rows": [{**row, "about": audit.about(row)} for row in rows],
            "head": audit.head(connection),
            "who": who,
            "what": what,
            "most": SHOWN,
        }

    return live_page(request, parts, "audit.html", "/audit", values)
