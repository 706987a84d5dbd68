"""Figures of the control plane itself for Prometheus; a scraper shows a token of the role viewer."""

from fastapi import APIRouter, Response

from cloud.services import Parts
from cloud.vitals import CONTENT_TYPE

router = APIRouter()


@router.get("/metrics", include_in_schema=False)
def scrape(parts: Parts) -> Response:
    """Give all figures in the text format."""
    return Response(parts.vitals.exposition(), media_type=CONTENT_TYPE)
