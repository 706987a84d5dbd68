"""Turns view-models into HTML answers: templates, static files held in memory, security headers.

Rules:
- Everything in a template is escaped; a page may load from its own origin only, and runs no inline script or style.
- Static files are named by the digest of all of them, so they may be cached for ever and never be stale.
"""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from fastapi import Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from cloud.console import words

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FILTERS = (
    "duration",
    "ago",
    "iso",
    "clock",
    "count",
    "number",
    "percent",
    "millis",
    "size",
    "plural",
    "plain",
    "metric",
)


class Renderer:
    """The templates and static files of the console, read once."""

    def __init__(self) -> None:
        self._static = _read_static()
        self.code = hashlib.sha256(b"".join(data for data, _ in self._static.values())).hexdigest()[:12]
        self._environment = Environment(
            loader=PackageLoader("cloud.console"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update({name: getattr(words, name) for name in _FILTERS})
        self._environment.globals["static"] = f"/static/{self.code}"

    def page(
        self, template: str, values: Mapping[str, Any], *, now_ms: int, status: int = 200, tag: str = ""
    ) -> Response:
        """Return a page; `now_ms` is the moment that it shows."""
        html = self._environment.get_template(template).render(now_ms=now_ms, **{"caller": None, **values})
        return HTMLResponse(html, status_code=status, headers=self.headers(now_ms, tag))

    def headers(self, now_ms: int, tag: str) -> dict[str, str]:
        """Return the headers of every page."""
        live = {"ETag": f'"{tag}"'} if tag else {}
        return {**HEADERS, "X-Now-Ms": str(now_ms), **live}

    def static(self, name: str, code: str) -> Response | None:
        """Return a static file, or None where there is none of this name; of another release, not to be kept."""
        found = self._static.get(name)
        if found is None:
            return None
        keep = "public, max-age=31536000, immutable" if code == self.code else "no-cache"
        headers = {"Cache-Control": keep, "X-Content-Type-Options": "nosniff"}
        return Response(found[0], media_type=found[1], headers=headers)


def _read_static() -> dict[str, tuple[bytes, str]]:
    folder = files("cloud.console").joinpath("static")
    return {
        entry.name: (entry.read_bytes(), media_type)
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if (media_type := _MEDIA_TYPES.get(entry.name[entry.name.rfind(".") :]))
    }
