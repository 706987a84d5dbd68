"""Makes the few HTML elements that a bundle's page is built of. Pure.

Rules:
- What comes in as text is escaped here, and nowhere else.
- Nothing is drawn for nothing: an empty list or section is an empty string.
"""

import html
from collections.abc import Sequence


def text(value: object) -> str:
    """Return a value as text that cannot be taken for markup."""
    return html.escape(str(value))


def section(title: str, body: str) -> str:
    """Return a heading with what stands under it."""
    return f"<h2>{text(title)}</h2>{body}" if body else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; wide ones scroll by themselves instead of widening the page."""
    top = "".join(f"<th>{text(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def bullets(lines: Sequence[str]) -> str:
    """Return a list of sentences."""
    return "<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>" if lines else ""
