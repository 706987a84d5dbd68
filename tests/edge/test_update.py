"""Updates: what is checked before a bundle is activated, what is refused, and what is tried again."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge import slots
from edge.bundle import parse
from edge.overrides import StationOverrides
from edge.update import Updater
from edge.values import StationSettings
from edge.wire.base import BundleRef
from edge.wire.messages import Desired, DesiredBundles, DesiredStation
from edge.wire.rows import EventRow
from tests.bundles import bundle_bytes
from tests.edge.updatebox import Box


@pytest.fixture
def box(tmp_path: Path) -> Any:
    box = Box(tmp_path)
    yield box
    box.serving.close()
    box.store.close()


def test_new_bundle_is_fetched_proved_tried_and_promoted(box: Box) -> None:
    box.set_up_with("1.0.0")
    second = box.publish("1.1.0")
    assert box.want(1, second)
    assert box.serve() == "1.1.0"
    assert box.slot_file.book.current == second.digest
    assert box.updater.applied == 1


def test_repeated_document_changes_nothing(box: Box) -> None:
    box.set_up_with("1.0.0")
    second = box.publish("1.1.0")
    box.want(1, second)
    box.serve()
    book = box.slot_file.book
    box.want(1, second)
    assert box.slot_file.book == book
    assert box.fetched == ["1.1.0"]


def test_older_document_is_ignored(box: Box) -> None:
    first = box.set_up_with("1.0.0")
    second = box.publish("1.1.0")
    box.want(5, second)
    box.want(4, first)
    assert box.serve() == "1.1.0"
    assert box.updater.applied == 5


def test_return_to_a_good_bundle_downloads_nothing(box: Box) -> None:
    first = box.set_up_with("1.0.0")
    box.want(1, box.publish("1.1.0"))
    box.serve()
    box.fetched.clear()
    box.cut = True
    assert box.want(2, first)
    assert box.serve(1) == "1.0.0"
    assert box.fetched == []


def test_return_in_the_middle_of_a_trial_uses_the_warm_engine(box: Box) -> None:
    first = box.set_up_with("1.0.0")
    box.want(1, box.publish("1.1.0"))
    assert box.serve(1) == "1.1.0"
    box.want(2, first)
    assert box.serve(1) == "1.0.0"
    assert box.slot_file.book.trial is None


def test_trial_that_ends_just_as_the_one_before_is_asked_for_gives_way_by_a_swap(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline promotes between the updater's look at the book and its change of it."""
    first = box.set_up_with("1.0.0")
    box.want(1, box.publish("1.1.0"))
    assert box.serve(1) == "1.1.0"
    change = box.slot_file.change

    def after_the_last_window(rule: Callable[[slots.Book, int], slots.Book]) -> slots.Book:
        monkeypatch.setattr(box.slot_file, "change", change)
        assert box.serve(1) == "1.1.0"
        assert box.told[-1] == "bundle_promoted"
        return change(rule)

    monkeypatch.setattr(box.slot_file, "change", after_the_last_window)
    box.want(2, first)
    assert box.serve(1) == "1.0.0"
    assert box.told[-1] == "bundle_swapped", "opened by the pipeline, which waits for it, instead of handed over"
    assert box.slot_file.book.current == first.digest
    told = box.store.rows(kind="event")
    assert "bundle_withdrawn" not in [row.name for row in told if isinstance(row, EventRow)]


def test_candidate_is_staged_and_does_not_decide(box: Box) -> None:
    first = box.set_up_with("1.0.0")
    second = box.publish("1.1.0")
    box.want(1, first, candidate=second)
    assert box.slot_file.book.state(second.digest) == "staged"
    assert box.serve(1) == "1.0.0"


def _altered(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "words"),
    [(lambda data: data[: len(data) // 2], "digest"), (_altered, "digest")],
    ids=["cut short", "altered"],
)
def test_damaged_download_is_refused_and_the_device_goes_on(
    box: Box, damage: Callable[[bytes], bytes], words: str
) -> None:
    box.set_up_with("1.0.0")
    second = box.publish("1.1.0")
    box.served[second.digest] = damage(box.served[second.digest])
    assert box.want(1, second)
    assert words in box.reasons[0]
    assert box.serve(1) == "1.0.0"


def test_bundle_that_nobody_signed_is_refused(box: Box) -> None:
    box.set_up_with("1.0.0")
    foreign = parse(bundle_bytes("1.1.0", note="foreign")).ref
    box.want(1, foreign)
    assert "signature" in box.reasons[0]
    assert box.serve(1) == "1.0.0"


def test_wrong_golden_outputs_are_refused_and_never_tried_again(box: Box) -> None:
    box.set_up_with("1.0.0")
    wrong = box.publish("1.1.0", kind="wrong_golden")
    box.want(1, wrong)
    assert "golden outputs differ" in box.reasons[0]
    box.fetched.clear()
    box.want(2, wrong)
    assert box.fetched == []
    assert box.serve(1) == "1.0.0"


def test_bundle_that_failed_here_is_not_fetched_again(box: Box) -> None:
    box.set_up_with("1.0.0")
    second = box.publish("1.1.0")
    box.want(1, second)
    box.serve(1)
    box.serving.window_failed("crashed")
    box.fetched.clear()
    for version in range(2, 50):
        box.want(version, second)
        assert box.serve(1) == "1.0.0"
    assert box.fetched == []
    assert "failed on this device before: crashed" in box.reasons[-1]
    assert len(box.updater.refusals) == 1, "the same refusal is remembered once"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"requires": {"profiles": ["rpi4"]}}, "made for rpi4, this device is x86-box"),
        ({"requires": {"memory_bytes": 2**41}}, "bytes of memory"),
        ({"name": "other"}, "expected a bundle of brightness, got other"),
    ],
    ids=["profile", "memory", "model"],
)
def test_bundle_that_does_not_fit_is_refused(box: Box, changes: dict[str, Any], words: str) -> None:
    box.set_up_with("1.0.0")
    box.want(1, box.publish("1.1.0", **changes))
    assert words in box.reasons[0]


def test_version_below_the_one_set_up_with_is_refused(box: Box) -> None:
    box.set_up_with("1.5.0")
    box.want(1, box.publish("1.4.9"))
    assert "below 1.5.0" in box.reasons[0]


def test_manifest_that_says_another_version_is_refused(box: Box) -> None:
    box.set_up_with("1.0.0")
    ref = box.publish("1.1.0")
    box.want(1, ref.model_copy(update={"version": "1.2.0"}))
    assert "its manifest says brightness 1.1.0" in box.reasons[0]


def test_cut_link_is_tried_again_until_it_heals(box: Box) -> None:
    box.set_up_with("1.0.0")
    second = box.publish("1.1.0")
    box.cut = True
    assert not box.want(1, second)
    assert box.updater.applied == 0
    assert box.reasons == []
    box.cut = False
    assert box.want(1, second)
    assert box.serve(1) == "1.1.0"


def test_damaged_file_on_disk_is_fetched_again(box: Box) -> None:
    first = box.set_up_with("1.0.0")
    box.want(1, box.publish("1.1.0"))
    box.serve()
    box.slot_file.bundle_path(first).write_bytes(b"rubbish")
    box.fetched.clear()
    assert box.want(2, first)
    assert box.fetched == ["1.0.0"]
    assert box.serve(1) == "1.0.0"


def test_files_that_nothing_needs_are_deleted(box: Box) -> None:
    first = box.set_up_with("1.0.0")
    for number in (1, 2):
        box.want(number, box.publish(f"1.{number}.0"))
        box.serve()
    box.want(3, box.publish("1.3.0"))
    assert not box.slot_file.bundle_path(first).exists()
    assert len(list(box.slot_file.bundle_path(first).parent.glob("*.lsb"))) == 3


def test_mode_from_the_cloud_holds_at_once_and_after_a_restart(box: Box) -> None:
    box.want(1, stations={"main": DesiredStation(mode="assist", policy={"pass_max": 0.01})})
    settings = box.overrides.settings("main")
    assert (settings.mode, settings.policy_overrides) == ("assist", {"pass_max": 0.01})
    own = {"main": StationSettings(station="main", mode="partial")}
    again = StationOverrides(own, box.store, "boot-2")
    assert again.settings("main").mode == "assist"
    events = [row.name for row in box.store.rows(kind="event")]  # type: ignore[union-attr]
    assert "station_changed" in events


def test_refusals_survive_a_restart(box: Box) -> None:
    box.set_up_with("1.5.0")
    box.want(1, box.publish("1.4.9"))
    again = Updater({}, box.overrides, box.store, None, box, box.clock, "boot-2")
    assert [refusal.bundle.version for refusal in again.refusals] == ["1.4.9"]
    assert again.applied == 1


def test_what_decides_is_offered_as_the_base_of_a_delta_and_a_refused_delta_is_on_record(box: Box) -> None:
    first = box.set_up_with("1.0.0")
    box.delta_problem = "the delta from 0123 cannot be used: it ends early"
    assert box.want(1, box.publish("1.1.0"))
    assert box.bases == [box.slot_file.bundle_path(first)]
    assert box.serve() == "1.1.0"
    told = [row.detail for row in box.store.rows(kind="event") if row.name == "delta_refused"]  # type: ignore[union-attr]
    assert told == ["brightness 1.1.0: the delta from 0123 cannot be used: it ends early; the whole came"]


def test_device_without_slots_refuses_an_operating_system_and_says_why(tmp_path: Path) -> None:
    box = Box(tmp_path)
    ref = BundleRef(name="os-x86-box", version="1.1.0", digest="0c" * 32, size_bytes=1000, kind="os")
    wish = {"os-x86-box": DesiredBundles(active=ref), "another_model": DesiredBundles(active=_of_another_model())}
    document = Desired(device="box-1", config_version=1, issued_at_ms=0, bundles=wish)
    assert asyncio.run(box.updater.apply(document)) and asyncio.run(box.updater.apply(document))
    (refusal,) = box.updater.refusals
    assert refusal.bundle == ref and "no slots for two operating systems" in refusal.reason
    assert box.fetched == []


def _of_another_model() -> BundleRef:
    return BundleRef(name="another_model", version="1.0.0", digest="0d" * 32, size_bytes=1000)
