"""Decisions of a device: as lines with what became of them, and one with all that explains it.

Rules:
- Pages go backwards by (time, sequence number), so that rows that arrive meanwhile shift nothing.
- An input is offered only if it has arrived here; else the page says why there is none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, select, tuple_

from cloud.console.words import number, percent
from cloud.tables import decisions, inputs, outcomes, reviews
from edge.wire.manifest import GOOD_LABEL

PAGE = 18
"""Decisions to a page: each brings a picture."""
Filter = Literal["all", "pass", "accept", "divert", "defer", "audit"]
FILTERS: tuple[Filter, ...] = ("all", "pass", "accept", "divert", "defer", "audit")


@dataclass(frozen=True)
class Input:
    """What was looked at or listened to, and whether it can be shown."""

    digest: str
    kind: Literal["picture", "sound", "other"]
    name: str
    here: bool
    absent: str
    """Why it is not here, if it is not."""

    @property
    def url(self) -> str:
        return f"/v1/inputs/{self.digest}"


@dataclass(frozen=True)
class DecisionLine:
    """One decision with its outcome and what people said of it."""

    device: str
    incarnation: str
    seq: int
    at_ms: int
    received_at_ms: int
    station: str
    model: str | None
    version: str | None
    digest: str | None
    verdict: str
    action: str
    reason: str | None
    detail: str | None
    text: str | None
    """What a recogniser of speech understood."""
    label: str | None
    confidence: float | None
    latency_ms: float | None
    waits: bool
    input: Input
    outcome: str | None
    outcome_detail: str | None
    answers: list[str]


@dataclass(frozen=True)
class Page:
    """One page of decisions, newest first."""

    lines: list[DecisionLine]
    older: str | None
    """Cursor of the next page, or None at the end."""


@dataclass(frozen=True)
class Answer:
    """What a person said."""

    answer: str
    label: str | None
    reviewer: str
    note: str
    at_ms: int


@dataclass(frozen=True)
class DecisionDetail:
    """One decision with everything that explains it."""

    line: DecisionLine
    scores: list[tuple[str, float]]
    thresholds: str
    """The thresholds in force and where this decision lies, in a sentence."""
    metrics: dict[str, float]
    latency: list[tuple[str, float]]
    mode: str
    runtime: str | None
    audit_probability: float
    source: str
    size_bytes: int | None
    media_type: str
    answers: list[Answer]


def page(connection: Connection, device: str, *, only: Filter = "all", before: tuple[int, int] | None = None) -> Page:
    """Return the newest decisions of a device, those before a cursor, of one kind or of all."""
    c = decisions.c
    query = select(decisions).where(c.device == device)
    if only == "audit":
        query = query.where(c.reason == "audit")
    elif only != "all":
        query = query.where(c.verdict == only)
    if before is not None:
        query = query.where(c.at_ms <= before[0], tuple_(c.at_ms, c.seq) < tuple_(*before))
    rows = connection.execute(query.order_by(c.at_ms.desc(), c.seq.desc()).limit(PAGE + 1)).mappings().all()
    lines = with_fates(connection, rows[:PAGE])
    older = f"{lines[-1].at_ms}.{lines[-1].seq}" if len(rows) > PAGE else None
    return Page(lines, older)


def detail(connection: Connection, device: str, incarnation: str, seq: int) -> DecisionDetail | None:
    """Return one decision with everything that explains it, or None where there is none."""
    c = decisions.c
    row = connection.execute(
        select(decisions).where(c.device == device, c.incarnation == incarnation, c.seq == seq)
    ).mappings().first()  # fmt: skip
    if row is None:
        return None
    body = row["body"]
    (line,) = with_fates(connection, [row])
    return DecisionDetail(
        line=line,
        scores=sorted((body.get("scores") or {}).items(), key=lambda pair: -pair[1]),
        thresholds=threshold_words(body),
        metrics=body.get("metrics") or {},
        latency=list((body.get("latency_ms") or {}).items()),
        mode=body.get("mode", ""),
        runtime=body.get("runtime"),
        audit_probability=row["audit_probability"],
        source=(body.get("input") or {}).get("source", ""),
        size_bytes=(body.get("input") or {}).get("size_bytes"),
        media_type=(body.get("input") or {}).get("media_type", ""),
        answers=_answers_in_full(connection, (device, incarnation, seq)),
    )


def with_fates(connection: Connection, rows: Sequence[Mapping[Any, Any]]) -> list[DecisionLine]:
    """Return rows of `decisions` as lines, with inputs, outcomes and answers looked up in one query each."""
    keys = [_key(row) for row in rows]
    here = _inputs_here(connection, {row["input_digest"] for row in rows})
    fates = _outcomes(connection, keys)
    said = _answers(connection, keys)
    return [_line(row, here, fates.get(_key(row)), said.get(_key(row), [])) for row in rows]


def input_of(body: Mapping[str, Any], digest: str, *, here: bool) -> Input:
    """Return the input of a decision's document."""
    document = body.get("input") or {}
    media_type = str(document.get("media_type", ""))
    kind: Literal["picture", "sound", "other"] = "other"
    if media_type.startswith("image/"):
        kind = "picture"
    elif media_type.startswith("audio/"):
        kind = "sound"
    return Input(digest, kind, str(document.get("name", "")), here, _absent(body, document))


def _absent(body: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    if body.get("forgotten"):
        return "erased on request"
    if document.get("features") is not None:
        return "only its features are kept, on the device"
    return "not arrived yet" if document.get("kept") else "not kept by the device"


def threshold_words(body: Mapping[str, Any]) -> str:
    """Return the thresholds that a decision was made with, and where its scores lie; empty where it had none."""
    policy, scores = body.get("policy") or {}, body.get("scores") or {}
    if "pass_max" in policy and "divert_min" in policy and GOOD_LABEL in scores:
        shown = number(1 - scores[GOOD_LABEL]), number(policy["pass_max"]), number(policy["divert_min"])
        return "Defect score {}: passes by itself up to {}, is diverted from {} on.".format(*shown)
    if "accept_min" in policy:
        return f"Accepted by itself from {percent(policy['accept_min'])} on."
    return ""


def _line(row: Mapping[Any, Any], here: set[str], fate: Mapping[str, Any] | None, said: list[str]) -> DecisionLine:
    body = row["body"]
    names = ("device", "incarnation", "seq", "at_ms", "received_at_ms", "station", "model", "version", "digest",
             "verdict", "action", "reason", "label", "confidence", "latency_ms")  # fmt: skip
    return DecisionLine(
        **{name: row[name] for name in names},
        detail=body.get("detail"),
        text=body.get("text"),
        waits=bool(row["needs_review"]),
        input=input_of(body, row["input_digest"], here=row["input_digest"] in here),
        outcome=fate.get("state") if fate else None,
        outcome_detail=fate.get("detail") if fate else None,
        answers=said,
    )


def _key(row: Mapping[Any, Any]) -> tuple[str, str, int]:
    return (row["device"], row["incarnation"], row["seq"])


def _inputs_here(connection: Connection, digests: Iterable[str]) -> set[str]:
    return set(connection.execute(select(inputs.c.digest).where(inputs.c.digest.in_(list(digests)))).scalars())


def _outcomes(
    connection: Connection, keys: Sequence[tuple[str, str, int]]
) -> dict[tuple[str, str, int], Mapping[str, Any]]:
    found: dict[tuple[str, str, int], Mapping[str, Any]] = {}
    for (device, incarnation), seqs in _by_stream(keys).items():
        query = select(outcomes.c.decision_seq, outcomes.c.body).where(
            outcomes.c.device == device, outcomes.c.incarnation == incarnation, outcomes.c.decision_seq.in_(seqs)
        )
        for row in connection.execute(query):
            found[device, incarnation, row.decision_seq] = row.body
    return found


def _answers(connection: Connection, keys: Sequence[tuple[str, str, int]]) -> dict[tuple[str, str, int], list[str]]:
    found: dict[tuple[str, str, int], list[str]] = {}
    for (device, incarnation), seqs in _by_stream(keys).items():
        query = (
            select(reviews.c.seq, reviews.c.answer)
            .where(reviews.c.device == device, reviews.c.incarnation == incarnation, reviews.c.seq.in_(seqs))
            .order_by(reviews.c.id)
        )
        for row in connection.execute(query):
            found.setdefault((device, incarnation, row.seq), []).append(row.answer)
    return found


def _answers_in_full(connection: Connection, key: tuple[str, str, int]) -> list[Answer]:
    c = reviews.c
    query = select(c.answer, c.label, c.reviewer, c.note, c.at_ms).where(
        c.device == key[0], c.incarnation == key[1], c.seq == key[2]
    )
    return [Answer(**row) for row in connection.execute(query.order_by(c.id)).mappings()]


def _by_stream(keys: Sequence[tuple[str, str, int]]) -> dict[tuple[str, str], list[int]]:
    streams: dict[tuple[str, str], list[int]] = {}
    for device, incarnation, seq in keys:
        streams.setdefault((device, incarnation), []).append(seq)
    return streams
