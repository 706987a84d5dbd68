"""The registry: every bundle with its version, size, guarantee, figures, lineage, and where it serves.

Rules:
- Newest version first, by number and not by spelling.
- A guarantee is said in whole words with its confidence, sample and unit; none is said to be none.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from cloud.console.views.fleet import slots_of, stations_of
from cloud.console.words import plural
from cloud.tables import bundles, device_state, devices, rollouts
from edge.wire.base import version_key


@dataclass(frozen=True)
class BundleLine:
    """One version of a model."""

    name: str
    version: str
    digest: str
    size_bytes: int
    state: str
    task: str
    description: str
    created_at: str
    published_at_ms: int
    published_by: str
    labels: list[str]
    formats: list[tuple[str, str]]
    """(runtime, precision) of each network file."""
    promise: str
    """The guarantee in a few words; empty for none."""
    guarantee: list[str]
    """The guarantee in sentences."""
    policy: dict[str, float]
    metrics: list[tuple[str, Any]]
    lineage: list[tuple[str, Any]]
    audit: list[tuple[str, Any]]
    serving: int
    """Devices on which it decides."""
    held: dict[str, int]
    """Devices that hold it, by state of the slot."""
    rollouts: list[tuple[str, str]]
    """(id, status) of the rollouts made of it."""


def models(connection: Connection) -> dict[str, list[BundleLine]]:
    """Return the versions of every model, by its name."""
    serving, held = _on_devices(connection)
    made: dict[str, list[tuple[str, str]]] = {}
    for made_of in connection.execute(select(rollouts.c.id, rollouts.c.digest, rollouts.c.status)):
        made.setdefault(made_of.digest, []).append((made_of.id, made_of.status))
    found: dict[str, list[BundleLine]] = {}
    for row in connection.execute(select(bundles).order_by(bundles.c.name)).mappings():
        digest = row["digest"]
        line = _line(row, serving[digest], dict(held.get(digest, {})), made.get(digest, []))
        found.setdefault(line.name, []).append(line)
    for lines in found.values():
        lines.sort(key=lambda line: version_key(line.version), reverse=True)
    return found


def promise_words(policy: Mapping[str, Any]) -> str:
    """Return what a policy promises in a few words; empty where it promises nothing."""
    g = policy.get("guarantee")
    if not g:
        return ""
    bounds = [
        (g.get("alpha_escape"), "escapes"),
        (g.get("alpha_false_reject"), "false rejects"),
        (g.get("alpha_error"), "wrong"),
    ]
    words = [f"{what} ≤ {100 * alpha:g} %" for alpha, what in bounds if alpha is not None]
    return ", ".join([*words, f"{100 * g['coverage']:.0f} % decided alone"])


def guarantee_words(policy: Mapping[str, Any]) -> list[str]:
    """Return what a policy promises, as sentences; empty where it promises nothing."""
    g = policy.get("guarantee")
    if not g:
        return []
    confidence = f"{100 * (1 - g['delta']):g} %"
    bounds = [
        (g.get("alpha_escape"), "of the parts that pass by themselves are defective"),
        (g.get("alpha_false_reject"), "of the parts that are thrown out by themselves are good"),
        (g.get("alpha_error"), "of what is accepted by itself is wrong"),
    ]
    words = [f"With confidence {confidence}, at most {100 * a:g} % {what}." for a, what in bounds if a is not None]
    sample = f"Chosen on {g['n']} held-out examples ({g.get('unit', 'picture')}s), of which "
    words.append(f"{sample}{100 * g['coverage']:.0f} % were decided without a person; {g['method']}.")
    return [*words, g["note"]] if g.get("note") else words


def flat(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested figures as (dotted name, value) in their own order; long lists as their length."""
    found: list[tuple[str, Any]] = []
    for name, value in document.items():
        if isinstance(value, dict):
            found += flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and (len(value) > 12 or any(isinstance(v, dict | list) for v in value)):
            found.append((prefix + name, plural(len(value), "entry", "entries")))
        elif isinstance(value, list):
            found.append((prefix + name, ", ".join(str(v) for v in value)))
        else:
            found.append((prefix + name, value))
    return found


def _line(row: Mapping[Any, Any], serving: int, held: dict[str, int], made: list[tuple[str, str]]) -> BundleLine:
    manifest = row["manifest"]
    policy = manifest.get("policy") or {}
    files = manifest.get("models") or {}
    return BundleLine(
        **{name: row[name] for name in ("name", "version", "digest", "size_bytes", "state")},
        published_at_ms=row["published_at_ms"],
        published_by=row["published_by"],
        task=manifest.get("task", ""),
        description=manifest.get("description", ""),
        created_at=manifest.get("created_at", ""),
        labels=list(manifest.get("labels") or []),
        formats=[(file.get("runtime", name), file.get("precision", "")) for name, file in files.items()],
        promise=promise_words(policy),
        guarantee=guarantee_words(policy),
        policy={name: value for name, value in policy.items() if isinstance(value, int | float)},
        metrics=flat(manifest.get("metrics") or {}),
        lineage=flat(manifest.get("lineage") or {}),
        audit=flat(manifest.get("audit") or {}),
        serving=serving,
        held=held,
        rollouts=made,
    )


def _on_devices(connection: Connection) -> tuple[Counter[str], dict[str, Counter[str]]]:
    serving: Counter[str] = Counter()
    held: dict[str, Counter[str]] = {}
    query = (
        select(device_state.c.reported)
        .join(devices, devices.c.device == device_state.c.device)
        .where(devices.c.revoked_at_ms.is_(None), device_state.c.reported.is_not(None))
    )
    for reported in connection.execute(query).scalars():
        if not reported:
            continue
        serving.update({station.digest for station in stations_of(reported) if station.digest})
        for slot in slots_of(reported):
            held.setdefault(slot.digest, Counter())[slot.state] += 1
    return serving, held
