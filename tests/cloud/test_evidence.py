"""What the gates are told: the right version on the right device in the right time, each case once."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from cloud.arms import Arm
from cloud.audit_samples import is_wrong
from cloud.evidence import SETTLED_AFTER_MS, EvidenceReader, device_view, memory_counts
from cloud.fleet import DeviceView as FleetView
from cloud.gates import Counts, GateSpec
from cloud.ingest import Incoming
from cloud.window_counts import MIN_FOR_P99, p99_ms
from edge.wire.base import BundleRef
from edge.wire.messages import Refusal, Up
from edge.wire.topics import topic
from tests.cloud.line import BAD, GOOD, MODEL, OLD, Device, Line, Quality, decision, outcome

SPECS = [
    GateSpec(metric="deferral", margin=0.1),
    GateSpec(metric="errors", margin=0.1),
    GateSpec(metric="deadline", margin=0.1),
    GateSpec(metric="latency", margin=0.1, limit_ms=50),
    GateSpec(metric="wrong", margin=0.1),
    GateSpec(metric="escape", margin=0.1),
    GateSpec(metric="false_reject", margin=0.1),
]


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path / "cloud", [Device("box-1"), Device("box-2")])
    made.audit_share = made.rate = 0
    made.second()
    yield made
    made.close()


def send(line: Line, device: Device, verdict: str, reason: str | None = None, **changes: object) -> int:
    """Store one decision as the device would send it; return its sequence number."""
    device.seq += 1
    given = {"at_ms": line.clock.now_ms(), "bundle": GOOD, "total_ms": 5.0, **changes}
    row = decision(device, verdict, reason, given["at_ms"], given["bundle"], total_ms=given["total_ms"])  # type: ignore[arg-type]
    if "audit_probability" in changes:
        row = row.model_copy(update={"audit_probability": changes["audit_probability"]})
    message = Up(device=device.name, incarnation="one", rows=[row])
    payload = message.model_dump_json().encode()
    line.parts.ingest.store_group([Incoming(topic(device.name, "up"), payload, False, lambda: None)] * 2)
    return device.seq


def act(line: Line, device: Device, decision_seq: int, state: str) -> None:
    device.seq += 1
    message = Up(
        device=device.name, incarnation="one", rows=[outcome(device, decision_seq, state, line.clock.now_ms())]
    )
    incoming = Incoming(topic(device.name, "up"), message.model_dump_json().encode(), False, lambda: None)
    line.parts.ingest.store_group([incoming])


def answer(line: Line, device: Device, seq: int, verdict: str) -> None:
    line.services.reviews.answer(device.name, "one", seq, answer=verdict, reviewer="ann")


def count(
    line: Line, since_ms: int, digests: dict[str, str] | None = None, reader: EvidenceReader | None = None
) -> dict[str, tuple[int, int]]:
    now_ms = line.clock.now_ms()
    arm = Arm({"box-1": GOOD.digest} if digests is None else digests, since_ms, now_ms + 1)
    with line.services.store.read() as connection:
        counts = (reader or EvidenceReader()).count(connection, arm, SPECS, now_ms)
    return {key: (value.bad, value.n) for key, value in counts.items()}


def test_each_bad_case_is_counted_under_its_metric_and_repeats_are_not(line: Line) -> None:
    box, since_ms = line.devices[0], line.clock.now_ms()
    send(line, box, "pass")
    send(line, box, "defer", "unsure")
    send(line, box, "defer", "deadline")
    send(line, box, "defer", "model_error")
    send(line, box, "pass", total_ms=80.0)
    lost = send(line, box, "divert")
    act(line, box, lost, "unknown")
    act(line, box, lost, "failed")
    act(line, box, send(line, box, "pass"), "done")
    found = count(line, since_ms)
    assert found["deferral"] == (3, 7)
    assert found["errors"] == (2, 7), "one that the model failed at, one whose action was lost"
    assert found["deadline"] == (1, 7)
    assert found["latency_over_50_ms"] == (1, 7)
    assert found["wrong"] == (0, 0)


def test_only_the_arms_version_on_the_arms_devices_counts(line: Line) -> None:
    one, two = line.devices
    since_ms = line.clock.now_ms()
    send(line, one, "pass", bundle=GOOD)
    send(line, one, "pass", bundle=OLD)
    send(line, two, "pass", bundle=GOOD)
    send(line, two, "pass", bundle=OLD)
    send(line, two, "defer", "model_error", bundle=None)
    assert count(line, since_ms)["deferral"] == (0, 1)
    assert count(line, since_ms, {"box-1": GOOD.digest, "box-2": OLD.digest})["deferral"] == (0, 2)
    assert count(line, since_ms, {}) == {}


def test_what_was_received_before_the_stage_does_not_count(line: Line) -> None:
    box = line.devices[0]
    send(line, box, "pass")
    line.clock.forward(1)
    since_ms = line.clock.now_ms()
    send(line, box, "pass")
    assert count(line, since_ms)["deferral"] == (0, 1)


def test_an_outbox_that_empties_late_does_not_pose_as_the_present(line: Line) -> None:
    box = line.devices[0]
    made_ms = line.clock.now_ms()
    line.clock.forward(3600)
    since_ms = line.clock.now_ms()
    send(line, box, "defer", "unsure", at_ms=made_ms)
    send(line, box, "pass", at_ms=since_ms - 5_000)  # a clock that is a little behind
    assert count(line, since_ms)["deferral"] == (0, 1)


def test_reviewed_audits_tell_escapes_from_false_rejects(line: Line) -> None:
    box, since_ms = line.devices[0], line.clock.now_ms()
    for verdict, truth in (
        ("pass", "pass"),
        ("pass", "divert"),
        ("divert", "divert"),
        ("divert", "pass"),
        ("pass", "pass"),
    ):
        answer(line, box, send(line, box, verdict, "audit"), truth)
    found = count(line, since_ms)
    assert found["wrong"] == (2, 5)
    assert found["escape"] == (1, 3)
    assert found["false_reject"] == (1, 2)


def test_labels_of_deferred_items_are_no_errors_and_cant_tell_does_not_count(line: Line) -> None:
    box, since_ms = line.devices[0], line.clock.now_ms()
    answer(line, box, send(line, box, "defer", "unsure"), "divert")
    answer(line, box, send(line, box, "pass", "audit"), "cant_tell")
    answer(line, box, send(line, box, "pass"), "divert")  # picked by a person, not drawn: no sample of anything
    assert count(line, since_ms)["wrong"] == (0, 0)


def test_the_latest_answer_counts_and_it_counts_once(line: Line) -> None:
    box, since_ms = line.devices[0], line.clock.now_ms()
    seq = send(line, box, "pass", "audit")
    answer(line, box, seq, "divert")
    answer(line, box, seq, "pass")
    answer(line, box, seq, "cant_tell")
    assert count(line, since_ms)["wrong"] == (0, 1)


def test_counts_kept_between_looks_are_those_counted_anew(line: Line) -> None:
    line.rate, line.audit_share = 9, 0.3
    line.qualities[OLD.digest] = Quality(deferral=0.2, model_error=0.05, lost_action=0.05, wrong=0.1)
    reader, since_ms = EvidenceReader(), line.clock.now_ms()
    arm = {"box-1": OLD.digest, "box-2": OLD.digest}
    for i in range(2 * SETTLED_AFTER_MS // 1000):
        line.second()
        if i == 40:
            line.clock.jump(-25)  # the clock may go back
        assert count(line, since_ms, arm, reader) == count(line, since_ms, arm)
    assert count(line, since_ms, arm)["deferral"][1] > 900


def test_outcomes_gone_wrong_are_found_by_their_index(line: Line) -> None:
    query = "EXPLAIN QUERY PLAN SELECT 1 FROM outcomes WHERE outcomes.state <> 'done' AND received_at_ms >= 5"
    with line.services.store.read() as connection:
        plan = " ".join(str(row) for row in connection.execute(text(query)))
    assert "outcomes_gone_wrong" in plan


def fleet_view(
    *, state: str | None = None, reason: str | None = None, refusals: tuple[str, ...] = (), applied: bool = True
) -> FleetView:
    """Return a device as the fleet gives it, with the candidate GOOD in some state."""
    slots = [{"bundle": OLD.model_dump(), "state": "good", "since_ms": 1, "reason": None}]
    if state:
        slots.append({"bundle": GOOD.model_dump(), "state": state, "since_ms": 1, "reason": reason})
    refused = [Refusal(bundle=GOOD, at_ms=1, reason=said).model_dump() for said in refusals]
    reported = {
        "config_version": 5 if applied else 4,
        "slots": {MODEL: slots},
        "stations": {"main": {"model": MODEL, "serving": OLD.model_dump()}},
        "refusals": refused,
    }
    return FleetView(
        device="box-1",
        profile="box",
        site="hall-1",
        tags=[],
        models=[MODEL],
        enrolled_at_ms=0,
        revoked_at_ms=None,
        freshness="fresh",
        stale_since_ms=None,
        online=True,
        last_heard_at_ms=9_000,
        boot_id="boot",
        reported=reported,
        desired={"config_version": 5, "bundles": {MODEL: {"active": GOOD.model_dump()}}},
    )


def test_a_device_that_failed_on_trial_has_gone_back_by_itself() -> None:
    again = "it failed on this device before: crashed"
    view = device_view(fleet_view(state="bad", reason="crashed", refusals=(again,)), MODEL, GOOD.digest, 10_000)
    assert (view.failure, view.refusal) == ("crashed", "")
    assert view.active == OLD, "what is desired is bad here, so what serves counts"
    assert view.silent_s == 1.0


def test_a_bundle_that_did_not_open_here_was_refused() -> None:
    said = "golden example 2 differs"
    view = device_view(fleet_view(state="bad", reason=said, refusals=(said,)), MODEL, GOOD.digest, 10_000)
    assert (view.failure, view.refusal) == ("", said)


def test_an_old_refusal_counts_only_once_the_device_has_seen_the_new_wish() -> None:
    said = "made for another profile"
    assert device_view(fleet_view(refusals=(said,), applied=False), MODEL, GOOD.digest, 10_000).refusal == ""
    assert device_view(fleet_view(refusals=(said,)), MODEL, GOOD.digest, 10_000).refusal == said
    assert device_view(fleet_view(state="staged", refusals=(said,)), MODEL, GOOD.digest, 10_000).refusal == ""


def test_a_device_that_never_reported_is_known_but_silent() -> None:
    bare = FleetView(
        **{**fleet_view().__dict__, "reported": None, "desired": None, "last_heard_at_ms": None, "freshness": "unknown"}
    )
    view = device_view(bare, MODEL, GOOD.digest, 10_000)
    assert (view.online, view.active, view.slot, view.silent_s) == (False, None, None, float("inf"))


@pytest.mark.parametrize(
    ("verdict", "label", "said", "named", "wrong"),
    [
        ("pass", "good", "pass", None, False),
        ("pass", "good", "divert", "scratch", True),
        ("divert", "scratch", "divert", "dent", False),
        ("accept", "seven", "accept", None, False),
        ("accept", "seven", "accept", "seven", False),
        ("accept", "seven", "accept", "nine", True),
    ],
)
def test_a_decision_is_wrong_when_the_person_says_otherwise(
    verdict: str, label: str, said: str, named: str | None, wrong: bool
) -> None:
    assert is_wrong(verdict, label, said, named) is wrong


def tell(line: Line, device: Device, *rows: dict[str, object]) -> None:
    """Store rows as the device would send them, each with the next sequence number."""
    for row in rows:
        device.seq += 1
        message = Up.model_validate({"device": device.name, "incarnation": "one", "rows": [{**row, "seq": device.seq}]})
        incoming = Incoming(topic(device.name, "up"), message.model_dump_json().encode(), False, lambda: None)
        line.parts.ingest.store_group([incoming])


def window(line: Line, bundle: BundleRef = GOOD, *, lasted_s: int = 60) -> dict[str, object]:
    ended_ms = line.clock.now_ms()
    times = {"started_at_ms": ended_ms - 1000 * lasted_s, "ended_at_ms": ended_ms}
    return {"kind": "telemetry", "station": "main", "model": MODEL, "bundle": bundle.model_dump(), **times}


def happened(line: Line, name: str, **data: object) -> dict[str, object]:
    plain = {"kind": "event", "at_ms": line.clock.now_ms(), "boot_id": "boot", "station": "main", "model": MODEL}
    return {**plain, "name": name, "data": data}


def judged(line: Line, since_ms: int, *specs: GateSpec) -> dict[str, Counts]:
    now_ms = line.clock.now_ms()
    with line.services.store.read() as connection:
        arm = Arm({"box-1": GOOD.digest}, since_ms, now_ms + 1)
        return EvidenceReader().count(connection, arm, list(specs), now_ms)


def test_audits_are_counted_by_the_probability_with_which_they_were_drawn(line: Line) -> None:
    box, since_ms = line.devices[0], line.clock.now_ms()
    for probability, decided, audited, wrong in ((0.5, 10, 4, 2), (0.02, 100, 2, 0), (0.0, 5, 0, 0)):
        for i in range(decided):
            reason = "audit" if i < audited else None
            seq = send(line, box, "pass", reason, audit_probability=probability)
            if reason:
                answer(line, box, seq, "divert" if i < wrong else "pass")
    found = judged(line, since_ms, GateSpec(metric="escape", margin=0.1))["escape"]
    assert [(round(g.probability, 3), g.of, g.bad, g.n) for g in found.groups] == [(0.019, 100, 0, 2), (0.5, 10, 2, 4)]
    assert found.rate == pytest.approx(10 / 110 * 2 / 4), "not 2 of 6: the seldom audited speak for more"


def test_windows_with_a_crash_are_counted_once_and_only_of_the_arm(line: Line) -> None:
    box, since_ms = line.devices[0], line.clock.now_ms()
    for crashes in (0, 2, 0, 1):
        line.clock.forward(30)
        tell(line, box, *[happened(line, "bundle_failed")] * crashes, happened(line, "swapped"))
        line.clock.forward(30)
        tell(line, box, window(line))
    tell(line, box, window(line, OLD))
    tell(line, line.devices[1], happened(line, "bundle_failed"), window(line))
    found = judged(line, since_ms, GateSpec(metric="crashes", margin=0.1))
    assert (found["crashes"].bad, found["crashes"].n) == (2, 4)


def test_windows_are_drifted_from_the_alarm_until_it_is_cleared(line: Line) -> None:
    box, since_ms = line.devices[0], line.clock.now_ms()
    tell(line, box, happened(line, "drift_cleared", metric="contrast"))
    told = {2: ("drift_raised", "brightness"), 3: ("drift_raised", "contrast"), 4: ("drift_cleared", "brightness")}
    for i in range(7):
        line.clock.forward(30)
        if i in told:
            tell(line, box, happened(line, told[i][0], metric=told[i][1]))
        elif i == 5:
            tell(line, box, happened(line, "drift_cleared", metric="contrast"))
        line.clock.forward(30)
        tell(line, box, window(line))
    found = judged(line, since_ms, GateSpec(metric="drift", margin=0.1))
    assert (found["drift"].bad, found["drift"].n) == (4, 7)


def test_agreement_in_the_shadow_is_added_up_over_what_the_device_tells(line: Line) -> None:
    box, since_ms = line.devices[0], line.clock.now_ms()
    for bundle, seen, agreed in ((GOOD, 50, 48), (GOOD, 20, 20), (BAD, 9, 0)):
        data = {"bundle": bundle.model_dump(), "offered": 90, "judged": seen, "agreed": agreed}
        tell(line, box, happened(line, "shadow_counted", **data))
    tell(line, box, happened(line, "shadow_counted", bundle=GOOD.model_dump(), judged="many", agreed=None))
    found = judged(line, since_ms, GateSpec(metric="disagreement", margin=0.1))
    assert (found["disagreement"].bad, found["disagreement"].n) == (2, 70)


def test_a_p99_gate_counts_what_is_slower_than_the_old_versions_p99_before_the_rollout(line: Line) -> None:
    box = line.devices[0]
    rows = []
    for i in range(MIN_FOR_P99 + 100):
        box.seq += 1
        rows.append(decision(box, "pass", None, line.clock.now_ms(), OLD, total_ms=float(i % 100)))
    for start in range(0, len(rows), 550):
        message = Up.model_validate({"device": box.name, "incarnation": "one", "rows": rows[start : start + 550]})
        payload = message.model_dump_json().encode()
        line.parts.ingest.store_group([Incoming(topic(box.name, "up"), payload, False, lambda: None)])
    arm = Arm({"box-1": OLD.digest}, 0, line.clock.now_ms() + 1)
    with line.services.store.read() as connection:
        assert p99_ms(connection, arm) == (98.0, MIN_FOR_P99 + 100)
        assert p99_ms(connection, Arm({"box-1": GOOD.digest}, 0, arm.until_ms)) == (None, 0)
        spec = GateSpec(metric="latency_p99", margin=0.01)
        now_ms = line.clock.now_ms()
        found = EvidenceReader().count(connection, arm, [spec], now_ms, {"latency_p99": 98.0})["latency_p99"]
        assert (found.bad, found.n) == (11, MIN_FOR_P99 + 100)
        assert EvidenceReader().count(connection, arm, [spec], now_ms) == {}, "without a limit nothing is too slow"


def test_memory_is_counted_by_devices_that_serve_the_arms_version() -> None:
    spec = GateSpec(metric="memory", margin=0.1, limit_mb=200)
    fleet = []
    for name, size, serving in (("a", 150e6, OLD), ("b", 250e6, OLD), ("c", 300e6, GOOD), ("d", 9e9, OLD)):
        view = fleet_view()
        assert view.reported is not None
        stations = {"main": {"model": MODEL, "serving": serving.model_dump()}}
        reported = {**view.reported, "health": {"memory_bytes": int(size)}, "stations": stations}
        fleet.append(dataclasses.replace(view, device=name, reported=reported))
    found = memory_counts(fleet, dict.fromkeys("abc", OLD.digest), MODEL, spec)
    assert (found.bad, found.n) == (1, 2)


def test_impossible_counts_are_never_made(line: Line) -> None:
    box, since_ms = line.devices[0], line.clock.now_ms()
    act(line, box, send(line, box, "defer", "model_error"), "failed")
    assert count(line, since_ms)["errors"] == (1, 1)
    assert Counts(bad=1, n=1).rate == 1.0
