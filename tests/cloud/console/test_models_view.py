"""The registry for people."""

from cloud.console.views.models import flat, guarantee_words, models, promise_words
from edge.wire.messages import SlotReport, StationReport
from tests.browser.sample_rollouts import add_rollout
from tests.cloud.console.plant import Plant, ref

GUARANTEE = {
    "method": "exact binomial", "alpha_escape": 0.02, "alpha_false_reject": None, "delta": 0.05, "n": 300,
    "unit": "part", "coverage": 0.876,
}  # fmt: skip


def test_versions_are_ordered_by_number_newest_first(plant: Plant) -> None:
    for version in ("1.9.0", "1.10.0", "1.2.0"):
        plant.bundle(ref(version=version))
    with plant.services.store.read() as connection:
        assert [line.version for line in models(connection)["phone_glass"]] == ["1.10.0", "1.9.0", "1.2.0"]


def test_bundle_shows_where_it_serves_and_which_rollouts_were_made_of_it(plant: Plant) -> None:
    new, old = ref(version="1.1.0"), ref()
    plant.bundle(new)
    plant.bundle(old)
    for box in ("box-1", "box-2"):
        plant.enrol(box)
        slots = [SlotReport(bundle=old, state="good", since_ms=1), SlotReport(bundle=new, state="bad", since_ms=2)]
        station = StationReport(model="phone_glass", mode="partial", serving=old)
        plant.report(box, slots={"phone_glass": slots}, stations={"belt": station})
    rollout = add_rollout(plant, "phone_glass", "1.1.0", "rolled_back", 1, plant.clock.now_ms(), {}, "it fails")
    with plant.services.store.read() as connection:
        newest, oldest = models(connection)["phone_glass"]
    assert (oldest.serving, oldest.held) == (2, {"good": 2})
    assert (newest.serving, newest.held, newest.rollouts) == (0, {"bad": 2}, [(rollout, "rolled_back")])


def test_guarantee_is_said_with_its_confidence_sample_and_coverage() -> None:
    words = " ".join(guarantee_words({"guarantee": GUARANTEE}))
    assert "confidence 95 %, at most 2 % of the parts that pass" in words
    assert "300 held-out examples (parts), of which 88 % were decided" in words
    assert "thrown out" not in words, "what is not promised is not said"
    assert promise_words({"guarantee": GUARANTEE}) == "escapes ≤ 2 %, 88 % decided alone"


def test_policy_without_a_guarantee_promises_nothing() -> None:
    assert guarantee_words({"pass_max": 0.1}) == []
    assert promise_words({"guarantee": None}) == ""


def test_nested_figures_are_shown_by_their_path_and_long_lists_by_their_length() -> None:
    document = {"test": {"auroc": 0.98, "per_class": {"crack": 0.9}}, "seeds": [1, 2], "curve": list(range(99))}
    assert flat(document) == [
        ("test.auroc", 0.98),
        ("test.per_class.crack", 0.9),
        ("seeds", "1, 2"),
        ("curve", "99\N{NO-BREAK SPACE}entries"),
    ]
