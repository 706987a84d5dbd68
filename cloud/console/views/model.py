"""One model with its versions: what may be done with each, where it runs, and who did what with it and why.

Rules:
- What may be done with a version is what the table of states allows (`cloud.lifecycle`); the request is checked again.
- Two versions to compare are proposed: the default and the newest beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from cloud import lifecycle
from cloud.comparing import Comparison, compare
from cloud.console.views.models import BundleLine, models
from cloud.tables import audit_log, bundles

MAX_HISTORY = 50
LOOKED_AT = 5000
"""Newest rows of the audit log that the history of a model is looked for in."""


@dataclass(frozen=True)
class VersionLine:
    """One version, and what may be done with it."""

    bundle: BundleLine
    audit: lifecycle.Audit
    audit_words: str
    is_default: bool
    has_file: bool
    moves: list[str]
    """`approve` and `retire`, where they are possible."""


@dataclass(frozen=True)
class ModelPage:
    """One model."""

    name: str
    task: str
    description: str
    versions: list[VersionLine]
    first: str
    second: str
    """Versions that are proposed to compare."""
    history: list[dict[str, Any]]


@dataclass(frozen=True)
class ComparePage:
    """Two versions of a model."""

    name: str
    versions: list[str]
    first: BundleLine
    second: BundleLine
    found: Comparison


def model_page(connection: Connection, name: str, has_file: Callable[[str], bool]) -> ModelPage | None:
    """Return the page of a model, None if nothing of that name is published."""
    lines = models(connection).get(name)
    if not lines:
        return None
    default = _default(connection, name)
    versions = [
        _version(line, _manifest(connection, line.digest), default, has_file=has_file(line.digest)) for line in lines
    ]
    first, second = _proposed(lines, default)
    newest = lines[0]
    return ModelPage(name, newest.task, newest.description, versions, first, second, _history(connection, name))


def compare_page(connection: Connection, name: str, first: str, second: str) -> ComparePage | None:
    """Return two versions side by side, None if one of them is not published."""
    lines = {line.version: line for line in models(connection).get(name, [])}
    if lines and not (first and second):
        first, second = _proposed([*lines.values()], _default(connection, name))
    if first not in lines or second not in lines:
        return None
    pair = lines[first], lines[second]
    manifests = [_manifest(connection, line.digest) for line in pair]
    found = compare(manifests[0], manifests[1], (pair[0].size_bytes, pair[1].size_bytes))
    return ComparePage(name, list(lines), *pair, found)


def _proposed(lines: list[BundleLine], default: str | None) -> tuple[str, str]:
    first = next((line.version for line in lines if line.digest == default), lines[-1].version)
    return first, next((line.version for line in lines if line.version != first), first)


def _version(line: BundleLine, manifest: dict[str, Any], default: str | None, *, has_file: bool) -> VersionLine:
    found = lifecycle.audit_of(manifest)
    state: Any = line.state
    is_default = line.digest == default
    moves = ["approve"] if state in ("candidate", "audited") else []
    if lifecycle.after("retired", state) is not None and not is_default:
        moves.append("retire")
    return VersionLine(line, found, lifecycle.AUDIT_WORDS[found], is_default, has_file, moves)


def _default(connection: Connection, name: str) -> str | None:
    c = bundles.c
    mine = (c.name == name, c.state == "approved", c.approved_at_ms.is_not(None))
    return connection.execute(select(c.digest).where(*mine).order_by(c.approved_at_ms.desc()).limit(1)).scalar()


def _manifest(connection: Connection, digest: str) -> dict[str, Any]:
    return dict(connection.execute(select(bundles.c.manifest).where(bundles.c.digest == digest)).scalar() or {})


def _history(connection: Connection, name: str) -> list[dict[str, Any]]:
    """Return what was done with bundles of this model, newest first."""
    c = audit_log.c
    query = select(c.id, c.at_ms, c.who, c.what, c.why, c.data, c.after).where(c.what.startswith("bundle_"))
    found = []
    for row in connection.execute(query.order_by(c.id.desc()).limit(LOOKED_AT)):
        data, after = row.data or {}, row.after or {}
        path = str(data.get("path", ""))
        if name in (data.get("model"), data.get("name")) or path.rpartition("-")[0] == name:
            version = data.get("version") or after.get("version") or path.rpartition("-")[2].removesuffix(".lsb")
            found.append({**row._asdict(), "version": version, "what": row.what.removeprefix("bundle_")})
    return found[:MAX_HISTORY]
