"""Counts reviewed audits of an arm, and what they were drawn from, by the probability with which they were drawn.

Rules:
- An audit counts once, by its latest answer; "can't tell" does not count; labels of deferred items are no errors.
- A case that was drawn with probability π speaks for 1/π decisions (Horvitz and Thompson 1952). Decisions are kept in
  groups of nearly one probability, so that what each group speaks for is counted and need not be estimated.
- What is never audited (π = 0) is in no group: nothing is known of it.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping

from sqlalchemy import Connection, and_, func, select

from cloud import tables
from cloud.arms import CLOCK_SLACK_MS, Arm, Tally
from cloud.gates import Counts, Group

PER_OCTAVE = 4
"""Groups to a factor of two: within one, weights differ by at most a fifth."""
SIDES: Mapping[str, tuple[str, ...]] = {
    "wrong": ("pass", "divert", "accept"),
    "escape": ("pass",),
    "false_reject": ("divert",),
}
"""Verdicts that each metric is about."""


def drawn(connection: Connection, arm: Arm, from_ms: int, until_ms: int) -> Tally:
    """Return how many decisions might have been audited, by verdict and group."""
    if from_ms >= until_ms:
        return {}
    c = tables.decisions.c
    query = (
        select(c.device, c.digest, c.verdict, c.audit_probability, func.count())
        .where(c.digest.in_(set(arm.digests.values())), c.received_at_ms >= from_ms, c.received_at_ms < until_ms)
        .where(c.at_ms >= arm.since_ms - CLOCK_SLACK_MS, c.audit_probability > 0, c.verdict != "defer")
        .group_by(c.device, c.digest, c.verdict, c.audit_probability)
    )
    found: Tally = {}
    for device, digest, verdict, probability, number in connection.execute(query):
        found.setdefault((device, digest), Counter())[_name(verdict, probability)] += int(number)
    return found


def counts(connection: Connection, arm: Arm, asked: Collection[str], of: Mapping[str, int]) -> dict[str, Counts]:
    """Return the counts of those metrics that are asked for.

    Args:
        connection: to the tables.
        arm: which version on which devices, and when.
        asked: names of metrics; those that are not about labels are passed over.
        of: how many decisions might have been audited, by verdict and group, as `drawn` names them.
    """
    bad, n = _reviewed(connection, arm)
    found = {}
    for metric in set(asked) & set(SIDES):
        groups: dict[float, list[int]] = {}
        for name in {*of, *n}:
            verdict, probability = name.split(" ")
            if verdict in SIDES[metric]:
                total = groups.setdefault(float(probability), [0, 0, 0])
                for i, number in enumerate((of.get(name, 0), bad[name], n[name])):
                    total[i] += number
        made = tuple(
            Group(probability=probability, of=max(whole, cases), bad=wrong, n=cases)
            for probability, (whole, wrong, cases) in sorted(groups.items())
        )
        found[metric] = Counts(bad=sum(g.bad for g in made), n=sum(g.n for g in made), groups=made)
    return found


def _name(verdict: str, probability: float) -> str:
    group = 2.0 ** (round(PER_OCTAVE * math.log2(probability)) / PER_OCTAVE)
    return f"{verdict} {min(group, 1.0):.6g}"


def _reviewed(connection: Connection, arm: Arm) -> tuple[Counter[str], Counter[str]]:
    """Return how many reviewed audits of an arm are wrong, and how many there are, by verdict and group."""
    d, r = tables.decisions.c, tables.reviews.c
    named = r.label.label("named")
    query = (
        select(d.device, d.incarnation, d.seq, d.digest, d.verdict, d.label, d.audit_probability, r.answer, named)
        .join_from(
            tables.reviews,
            tables.decisions,
            and_(d.device == r.device, d.incarnation == r.incarnation, d.seq == r.seq),
        )
        .where(r.at_ms >= arm.since_ms, r.answer != "cant_tell")
        .where(d.received_at_ms >= arm.since_ms, d.received_at_ms < arm.until_ms)
        .where(d.digest.in_(set(arm.digests.values())), d.reason == "audit", d.verdict != "defer")
        .where(d.at_ms >= arm.since_ms - CLOCK_SLACK_MS, d.audit_probability > 0)
        .order_by(r.id)
    )
    latest = {(row.device, row.incarnation, row.seq): row for row in connection.execute(query)}
    bad: Counter[str] = Counter()
    n: Counter[str] = Counter()
    for row in latest.values():
        if arm.digests.get(row.device) == row.digest:
            name = _name(row.verdict, row.audit_probability)
            n[name] += 1
            bad[name] += is_wrong(row.verdict, row.label, row.answer, row.named)
    return bad, n


def is_wrong(verdict: str, label: str | None, answer: str, named: str | None) -> bool:
    """Return whether a person's answer contradicts an automated decision.

    Args:
        verdict: `pass`, `divert` or `accept`.
        label: the class that the decision named.
        answer: the person's verdict.
        named: the class that the person named, if any; it matters for accepted words only.
    """
    return answer != verdict or (verdict == "accept" and named is not None and named != label)
