"""Which bundle files the control plane may remove; pure.

Rules:
- Never one that a device may need: what it runs, has on trial, staged or trusts as its way back, what its desired state
  names, what an open rollout names.
- Never a model's default, what is approved, or the newest versions of a model (`keep_last`).
- Signed lists and rows stay: only the file goes, the same file may be uploaded again, and nothing else can.
- Whatever is not surely superfluous is kept, with the reason.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge.wire.base import version_key

TRUSTED_SLOTS = ("staged", "trial", "good")
"""States of a slot whose file a device has and may go to; a bad one is never tried again."""


@dataclass(frozen=True)
class Held:
    """One version whose file is here."""

    digest: str
    name: str
    version: str
    state: str
    is_default: bool
    size_bytes: int


@dataclass(frozen=True)
class Verdict:
    """Whether a file may go."""

    held: Held
    kept_for: str
    """Why it is kept; empty if it may go."""

    def as_json(self) -> dict[str, Any]:
        """Return it as a document for machines."""
        held = self.held
        return {
            "name": held.name,
            "version": held.version,
            "digest": held.digest,
            "size_bytes": held.size_bytes,
            "kept_for": self.kept_for,
        }


def verdicts(held: Iterable[Held], needed: Mapping[str, str], *, keep_last: int) -> list[Verdict]:
    """Return what becomes of each file, by model, newest version first.

    Args:
        held: the versions whose files are here.
        needed: why a digest is needed, from `needs`.
        keep_last: so many newest versions of every model are kept.
    """
    ordered = sorted(held, key=lambda one: version_key(one.version), reverse=True)
    ordered.sort(key=lambda one: one.name)
    found: list[Verdict] = []
    for one in ordered:
        rank = sum(other.held.name == one.name for other in found)
        found.append(Verdict(one, _kept_for(one, needed, rank, keep_last)))
    return found


def needs(
    reported: Mapping[str, Mapping[str, Any]], desired: Mapping[str, Any], rollouts: Mapping[str, Any]
) -> dict[str, str]:
    """Return why digests are needed.

    Args:
        reported: last reports by device.
        desired: desired states by device.
        rollouts: plan and state of the open rollouts by id.
    """
    found: dict[str, str] = {}
    for rollout, document in rollouts.items():
        found.update(dict.fromkeys(digests_in(document), f"rollout {rollout} names it"))
    for device, document in desired.items():
        found.update(dict.fromkeys(digests_in(document), f"{device} is to have it"))
    for device, document in reported.items():
        found.update(dict.fromkeys(_on_device(document), f"{device} has it"))
    return found


def digests_in(document: Any) -> Iterator[str]:
    """Give every text of 64 characters in a document: whatever refers to a bundle does so by its digest."""
    if isinstance(document, str):
        if len(document) == 64:
            yield document
    elif isinstance(document, Mapping):
        for key, value in document.items():
            yield from digests_in(key)
            yield from digests_in(value)
    elif isinstance(document, list | tuple):
        for value in document:
            yield from digests_in(value)


def _on_device(reported: Mapping[str, Any]) -> Iterator[str]:
    for slots in (reported.get("slots") or {}).values():
        yield from (digest for slot in slots if slot.get("state") in TRUSTED_SLOTS for digest in digests_in(slot))
    yield from digests_in([station.get("serving") for station in (reported.get("stations") or {}).values()])


def _kept_for(one: Held, needed: Mapping[str, str], rank: int, keep_last: int) -> str:
    if one.digest in needed:
        return needed[one.digest]
    if one.is_default:
        return "it is the default"
    if one.state == "approved":
        return "it is approved"
    if rank < keep_last:
        return f"it is among the last {keep_last}"
    return ""
