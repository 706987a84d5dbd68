"""Says that the control plane is up."""

from typing import Any

from fastapi import APIRouter
from sqlalchemy import select

from cloud.services import Parts

router = APIRouter()


@router.get("/healthz")
def healthz(parts: Parts) -> dict[str, Any]:
    """Answer if the database can be read."""
    with parts.store.read() as connection:
        connection.execute(select(1))
    return {"ok": True}
