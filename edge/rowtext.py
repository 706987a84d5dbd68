"""Turns rows into the JSON that is stored and travels, such that it can always be read back, and back into rows.

Rules:
- One row that nobody can read would hold up every row behind it, so it is made readable here, at the only way in:
  numbers that are not finite are left out and named in the detail, text that is too long is cut.
- What is None is left out of a decision and of an outcome: their readers know the default.
"""

import math
from typing import Any, NamedTuple

from pydantic import ValidationError

from edge.errors import StoreError
from edge.wire.rows import DecisionRow, EventRow, OutcomeRow, TelemetryRow, parse_row

MAX_ROW_BYTES = 128 * 1024
"""A decision over a thousand labels is 40 KB; two rows of this size still fit one batch."""
MAX_TEXT = 2000
"""Characters of one text in a row that had to be cut: an error message, not a log file."""

_SEQ = {"seq"}
_SPARSE = ("decision", "outcome")

AnyRow = DecisionRow | OutcomeRow | EventRow | TelemetryRow


class StoredRow(NamedTuple):
    """A row as it travels: `body` is its JSON with `seq`."""

    seq: int
    kind: str
    body: str


def row_text(row: AnyRow) -> str:
    """Return the row's JSON without its seq.

    Raises:
        StoreError: it cannot be made readable (`retry` is False).
    """
    try:
        body = row.model_dump_json(exclude=_SEQ, exclude_none=row.kind in _SPARSE)
    except ValueError:  # text that is not Unicode
        return _mended(row)
    # A null is a number that was not finite, or what may be None; a row without one need not be read back.
    if len(body) > MAX_ROW_BYTES or ("null" in body and not reads(f'{{"seq":1,{body[1:]}')):
        return _mended(row)
    return body


def read_row(row: StoredRow, now_ms: int) -> AnyRow:
    """Return the row; in the place of one whose text was damaged on disk, an event that holds what is left of it."""
    try:
        return parse_row(row.body)
    except ValidationError:
        return EventRow(
            seq=row.seq,
            at_ms=now_ms,
            boot_id="",
            name="row_damaged",
            severity="alarm",
            detail=f"the text of a {row.kind} was damaged on disk",
            data={"text": row.body[:MAX_TEXT]},
        )


def reads(text: str) -> bool:
    """Return whether this is the JSON of a row that the other side can read."""
    try:
        parse_row(text)
    except ValidationError:
        return False
    return True


def _mended(row: AnyRow) -> str:
    left_out: list[str] = []
    value = _clean(row.model_dump(exclude={"seq"}, exclude_none=True), "", left_out)
    if left_out and "detail" in type(row).model_fields:
        value["detail"] = f"{value.get('detail') or ''} (not finite, left out: {', '.join(left_out)})".strip()[
            :MAX_TEXT
        ]
    try:
        body = type(row).model_validate({**value, "seq": 1}).model_dump_json(exclude={"seq"}, exclude_none=True)
    except ValidationError as error:
        raise StoreError(f"a {row.kind} cannot be recorded: {error}", retry=False) from error
    if len(body) > MAX_ROW_BYTES:
        raise StoreError(f"a {row.kind} may have {MAX_ROW_BYTES} bytes, got {len(body)}", retry=False)
    return body


def _clean(value: Any, where: str, left_out: list[str]) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()[:MAX_TEXT]
    if isinstance(value, dict):
        named = {key: _clean(item, f"{where}.{key}".lstrip("."), left_out) for key, item in value.items()}
        return {key: item for key, item in named.items() if not _not_finite(item)}
    if isinstance(value, list):
        return [item for item in (_clean(item, where, left_out) for item in value) if not _not_finite(item)]
    if _not_finite(value):
        left_out.append(where)
    return value


def _not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
