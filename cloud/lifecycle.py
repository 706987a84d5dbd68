"""What may be done with a version of a model: its states, what moves it between them, and what its audit says; pure.

The table: event, state before, state after.

| event      | from                         | to       | when                                            |
|------------|------------------------------|----------|-------------------------------------------------|
| audited    | candidate                    | audited  | it is published, and its own audit report passed |
| approved   | audited, approved            | approved | by a person, as default, or its rollout is done |
| overridden | candidate                    | approved | the same without such an audit, with a reason   |
| retired    | candidate, audited, approved | retired  | a person retires it                             |

Rules:
- A version may be rolled out if its audit passed or, being an operating system, it needs none; or if somebody says why
  it may be without: the audit log has both.
- A retired version goes nowhere any more, and does not come back: what is mended is published as a new version.
  Devices that run it go on until they get another one; its file stays as long as one may need it (`retention`).
"""

from collections.abc import Mapping
from typing import Any, Literal

State = Literal["candidate", "audited", "approved", "retired"]
Event = Literal["audited", "approved", "overridden", "retired"]
Audit = Literal["passed", "failed", "no_limits", "none", "not_needed"]

TRANSITIONS: dict[tuple[Event, State], State] = {
    ("audited", "candidate"): "audited",
    ("approved", "audited"): "approved",
    ("approved", "approved"): "approved",
    ("overridden", "candidate"): "approved",
    ("retired", "candidate"): "retired",
    ("retired", "audited"): "retired",
    ("retired", "approved"): "retired",
}

AUDIT_WORDS: dict[Audit, str] = {
    "passed": "its audit passed",
    "failed": "its audit failed",
    "no_limits": "its audit had no limits to pass or fail",
    "none": "it has no audit report",
    "not_needed": "it is an operating system: devices judge it by a trial of their own",
}
PROVEN: tuple[Audit, ...] = ("passed", "not_needed")
"""Answers with which a version may be rolled out and approved without a word."""
HINT = (
    "audit it against agreed limits (`lineside-export audit BUNDLE DATA --limits FILE --out NEW`) and publish that, "
    "or say why it may go without: --unaudited REASON"
)


def audit_of(manifest: Mapping[str, Any]) -> Audit:
    """Return what a bundle's own audit report says: the answer to limits that were agreed beforehand."""
    if manifest.get("kind") == "os":
        return "not_needed"
    report = manifest.get("audit") or {}
    if not report:
        return "none"
    passed = report.get("passed")
    return "passed" if passed is True else "failed" if passed is False else "no_limits"


def first_state(manifest: Mapping[str, Any]) -> State:
    """Return the state in which a version is published."""
    return TRANSITIONS["audited", "candidate"] if audit_of(manifest) in PROVEN else "candidate"


def after(event: Event, state: State) -> State | None:
    """Return the state after an event, None if it is not possible."""
    return TRANSITIONS.get((event, state))


def approval(state: State, *, unaudited: str) -> Event:
    """Return the event by which a version is approved; `unaudited` is the reason to do without an audit."""
    return "overridden" if state == "candidate" and unaudited.strip() else "approved"


def why_not_rolled_out(state: State, audit: Audit, *, unaudited: str) -> str:
    """Return why a version may not be given out, in words; empty if it may."""
    if state == "retired":
        return "it was retired"
    if state == "candidate" and not unaudited.strip():
        return AUDIT_WORDS[audit]
    return ""
