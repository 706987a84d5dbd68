"""What each rule sees now, read from the tables.

Rules:
- One function a kind of rule; each says every subject that it knows, clear ones as well, so that alerts can end.
- Bounded: what is read covers the rule's window only.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Connection, and_, func, select

from cloud import tables
from cloud.alerts import rules
from cloud.alerts.states import Observation, seen_of
from cloud.audit_samples import is_wrong
from cloud.errors import NotFoundError
from cloud.fleet import DeviceView
from cloud.telemetry.driftreport import report
from cloud.telemetry.queries import By, Question, ask
from cloud.telemetry.tables import metric_points, metric_series

DAY_MS = 86_400_000
USED_TO_MS = 7 * DAY_MS
"""A device that has not sent a metric for longer is not missed."""
_KEEPS = {60: DAY_MS, 3600: 14 * DAY_MS, DAY_MS // 1000: 400 * DAY_MS}
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def observe(connection: Connection, rule: rules.Rule, fleet: Iterable[DeviceView], now_ms: int) -> list[Observation]:
    """Return what a rule sees of every subject that it knows."""
    look: Callable[..., list[Observation]] = _LOOKS[type(rule)]
    return look(connection, rule, list(fleet), now_ms)


def _threshold(
    connection: Connection, rule: rules.ThresholdRule, _fleet: list[DeviceView], now_ms: int
) -> list[Observation]:
    by: tuple[By, ...] = () if rule.by == "all" else ("device", "station") if rule.by == "station" else (rule.by,)
    share = _SHARES.get(rule.of)
    from_ms = now_ms - int(rule.window_s * 1000)
    step_s = 60 if rule.window_s <= 86_400 else 3600
    question = Question(rule.metric, from_ms, now_ms + 1, by=by, step_s=step_s, shares=(share,) if share else (0.5,))
    try:
        groups = ask(connection, question, keeps_ms=_KEEPS, now_ms=now_ms)["groups"]
    except NotFoundError:
        return []  # nobody sends it yet
    return [_held_against(rule, " ".join(str(group[name]) for name in by) or "all", group["total"]) for group in groups]


def _held_against(rule: rules.ThresholdRule, subject: str, total: dict[str, Any]) -> Observation:
    if rule.of == "share":
        value, n = total.get("share"), total.get("of") or 0
    elif rule.of == "count":
        value, n = float(total["count"]), rule.min_n
    else:
        found = total.get("percentiles", {}).get(rule.of.removeprefix("p"))
        value, n = (found["value"] if found else None), total["count"]
    value = value if n >= rule.min_n else None
    limit = f"above {rule.above:g}" if rule.above is not None else f"below {rule.below:g}"
    words = f"{rule.metric} of {subject}: {rule.of} is {value:.4g}, alert {limit}" if value is not None else ""
    return Observation(subject, seen_of(value, above=rule.above, below=rule.below, clear=rule.clear), words, value)


def _absence(
    connection: Connection, rule: rules.AbsenceRule, fleet: list[DeviceView], now_ms: int
) -> list[Observation]:
    s, p = metric_series.c, metric_points.c
    query = (
        select(s.device, func.max(p.start_ms))
        .join(metric_points, p.series == s.id)
        .where(s.metric == rule.metric, p.step_s == 60, p.start_ms >= now_ms - USED_TO_MS)
        .group_by(s.device)
    )
    last = {row[0]: int(row[1]) for row in connection.execute(query)}
    found = []
    for device in fleet:
        if device.device in last:
            silent_s = (now_ms - last[device.device]) / 1000
            # One that is away is not there to send: that is another rule's business.
            seen = "unknown" if device.freshness != "fresh" else "breach" if silent_s > rule.window_s else "clear"
            words = f"{device.device} has sent no {rule.metric} for {_span(silent_s)}"
            found.append(Observation(device.device, seen, words, silent_s))  # type: ignore[arg-type]
    return found


def _drift(connection: Connection, rule: rules.DriftRule, _fleet: list[DeviceView], now_ms: int) -> list[Observation]:
    return [
        Observation(
            f"{one.device} {one.station}",
            "breach",
            f"{one.device}, {one.station}: {one.moved[0].words}; {one.kind_words}",
            one.moved[0].distance,
        )
        for one in report(connection, now_ms)
        if rule.model in (None, one.model)
    ]


def _rollback(
    connection: Connection, rule: rules.RollbackRule, _fleet: list[DeviceView], now_ms: int
) -> list[Observation]:
    c = tables.rollout_log.c
    query = select(c.rollout, c.at_ms, c.reason).where(c.step == "rolled_back").order_by(c.id.desc()).limit(100)
    newest = {row.rollout: row for row in reversed(connection.execute(query).all())}
    return [
        Observation(row.rollout, "breach", f"rollout {row.rollout} was taken back: {row.reason}")
        for row in newest.values()
        if row.at_ms >= now_ms - rule.stands_s * 1000
    ]


def _stale(_connection: Connection, rule: rules.StaleRule, fleet: list[DeviceView], now_ms: int) -> list[Observation]:
    found = []
    for device in fleet:
        if device.freshness == "unknown" or not device.last_heard_at_ms:
            continue
        silent_s = (now_ms - device.last_heard_at_ms) / 1000
        away = device.freshness == "stale" and silent_s > rule.older_than_s
        words = f"{device.device} of {device.site} was last heard {_span(silent_s)} ago"
        found.append(Observation(device.device, "breach" if away else "clear", words, silent_s))
    return found


def _review(connection: Connection, rule: rules.ReviewRule, _fleet: list[DeviceView], now_ms: int) -> list[Observation]:
    c = tables.decisions.c
    oldest, n = connection.execute(select(func.min(c.at_ms), func.count()).where(c.needs_review.is_(True))).one()
    age_s = (now_ms - oldest) / 1000 if n else 0.0
    words = f"{n} decisions wait for a person, the oldest for {_span(age_s)}"
    return [Observation("review", "breach" if age_s > rule.older_than_s else "clear", words, age_s)]


def _agreement(
    connection: Connection, rule: rules.AgreementRule, _fleet: list[DeviceView], now_ms: int
) -> list[Observation]:
    d, r = tables.decisions.c, tables.reviews.c
    same = and_(d.device == r.device, d.incarnation == r.incarnation, d.seq == r.seq)
    query = (
        select(d.device, d.incarnation, d.seq, d.model, d.verdict, d.label, r.answer, r.label.label("named"))
        .join_from(tables.reviews, tables.decisions, same)
        .where(r.at_ms >= now_ms - rule.window_s * 1000, r.answer != "cant_tell")
        .where(d.reason == "audit", d.verdict != "defer", d.model.is_not(None))
        .order_by(r.id)
    )
    latest = {(row.device, row.incarnation, row.seq): row for row in connection.execute(query)}
    counts: dict[str, Counter[bool]] = {}
    for row in latest.values():
        agrees = not is_wrong(row.verdict, row.label, row.answer, row.named)
        counts.setdefault(row.model, Counter())[agrees] += 1
    found = []
    for model, seen in counts.items():
        n = seen.total()
        share = seen[True] / n if n >= rule.min_n else None
        words = f"people agree with {100 * seen[True] / n:.1f} % of {n} audited decisions of {model}"
        limits = {"above": None, "below": rule.below, "clear": rule.clear}
        found.append(Observation(model, seen_of(share, **limits), words, share))
    return found


_LOOKS: dict[type, Callable[..., list[Observation]]] = {
    rules.ThresholdRule: _threshold,
    rules.AbsenceRule: _absence,
    rules.DriftRule: _drift,
    rules.RollbackRule: _rollback,
    rules.StaleRule: _stale,
    rules.ReviewRule: _review,
    rules.AgreementRule: _agreement,
}
"""The kinds of rules; an alert whose subject a look does not name any more is over."""


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
