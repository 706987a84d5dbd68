"""Reviewing what was deferred: by keys, by number, with undo, and when an answer is not taken."""

import re

import pytest
from playwright.sync_api import Route, expect

from cloud import tables
from models.phone_glass.generate import series
from models.phone_glass.generator import Studio
from tests.browser.conftest import Journey
from tests.browser.sample_data import DIGITS, sound
from tests.cloud.console.plant import LABELS, Plant, ref
from tests.waiting import wait_until

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    made = series(seed=3, start=0, count=8, light="normal", defect_share=0.5, studio=Studio())
    return [shot.jpeg for shot in made]


def _defer(plant: Plant, pictures: list[bytes], count: int) -> list[int]:
    """Let a device defer so many pictures; return their numbers, oldest first."""
    plant.bundle(ref(), labels=LABELS)
    plant.enrol("box-1")
    rows = []
    for number in range(count):
        data = pictures[number % len(pictures)]
        plant.arrive("box-1", data)
        at_ms = plant.clock.now_ms() - 60_000 + number * 100
        rows.append(plant.deferral("box-1", at_ms=at_ms, input=plant.input_ref(f"{number}.jpg", data)))
    plant.up("box-1", list(rows))
    return [row.seq for row in rows]


def _answers(plant: Plant) -> list[tuple[int, str, str | None]]:
    query = tables.reviews.select().order_by(tables.reviews.c.id)
    with plant.services.store.read() as connection:
        return [(row.seq, row.answer, row.label) for row in connection.execute(query)]


def test_answers_by_keys_bring_the_next_item_at_once_and_are_all_kept(journey: Journey, pictures: list[bytes]) -> None:
    seqs = _defer(journey.plant, pictures, 20)
    journey.open("/review")
    shown = journey.page.locator(".item:not([hidden])")
    keys = ["p", "d", " ", "2", "j", "k", "l"] * 3
    wanted = {"p": "pass", "j": "pass", "d": "divert", "k": "divert", " ": "cant_tell", "l": "cant_tell", "2": "divert"}
    for seq, key in zip(seqs, keys, strict=False):
        expect(shown).to_have_count(1)
        assert shown.get_attribute("data-seq") == str(seq), "oldest first, and never the same one twice"
        journey.page.keyboard.press(key)
        expect(journey.page.locator(f".item[data-seq='{seq}']")).to_have_count(0)
    expect(journey.page.locator("#review-empty")).to_be_visible()
    wait_until(lambda: len(_answers(journey.plant)) == len(seqs), 10, "every answer to be kept")
    kept = sorted(_answers(journey.plant))
    assert kept == [(seq, wanted[key], "crack" if key == "2" else None) for seq, key in zip(seqs, keys, strict=False)]


def test_next_item_does_not_wait_for_the_answer_to_be_kept(journey: Journey, pictures: list[bytes]) -> None:
    seqs = _defer(journey.plant, pictures, 2)
    held: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.method == "POST":
            held.append(route)
        else:
            route.continue_()

    # Before the page is there: a route that is put on a busy page may come too late for its next request.
    journey.page.route("**/v1/review/**", lambda route: hold(route))  # a lambda: Playwright marks its handlers
    journey.open("/review")
    journey.page.keyboard.press("p")
    expect(journey.page.locator(".item:not([hidden])")).to_have_attribute("data-seq", str(seqs[1]))
    assert (_answers(journey.plant), len(held)) == ([], 1)
    held[0].continue_()
    wait_until(lambda: _answers(journey.plant) == [(seqs[0], "pass", None)], 20, "the answer to be kept")


def test_next_pictures_are_loaded_before_they_are_needed(journey: Journey, pictures: list[bytes]) -> None:
    _defer(journey.plant, pictures, 4)
    journey.open("/review")
    loaded = "[...document.querySelectorAll('.item img')].filter(i => i.complete && i.naturalWidth > 0).length"
    journey.wait_for(f"{loaded} === 4")


def test_undo_brings_the_last_item_back_and_takes_its_answer_away(journey: Journey, pictures: list[bytes]) -> None:
    seqs = _defer(journey.plant, pictures, 3)
    journey.open("/review")
    expect(journey.page.locator("#undo")).to_be_hidden()
    journey.page.keyboard.press("p")
    journey.page.keyboard.press("d")
    expect(journey.page.locator("#left")).to_have_text(re.compile("1\\sitem left"))
    journey.page.keyboard.press("u")
    expect(journey.page.locator(".item:not([hidden])")).to_have_attribute("data-seq", str(seqs[1]))
    expect(journey.page.locator("#left")).to_have_text(re.compile("2\\sitems left"))
    wait_until(lambda: _answers(journey.plant) == [(seqs[0], "pass", None)], 10, "one answer to be left")
    journey.page.locator("#undo").click()
    expect(journey.page.locator(".item:not([hidden])")).to_have_attribute("data-seq", str(seqs[0]))
    wait_until(lambda: _answers(journey.plant) == [], 10, "no answer to be left")


def test_answer_that_is_not_taken_brings_its_item_back_and_says_why(journey: Journey, pictures: list[bytes]) -> None:
    seqs = _defer(journey.plant, pictures, 2)
    journey.open("/review")
    journey.page.route("**/v1/review/**", lambda route: route.abort())
    journey.page.keyboard.press("p")
    expect(journey.page.locator("#review-error")).to_contain_text("Not kept")
    expect(journey.page.locator(".item:not([hidden])")).to_have_attribute("data-seq", str(seqs[0]))
    assert _answers(journey.plant) == []
    journey.forgive("net::ERR_FAILED")


def test_new_items_appear_by_themselves_when_nothing_was_left(journey: Journey, pictures: list[bytes]) -> None:
    journey.open("/review")
    expect(journey.page.locator("#review-empty")).to_be_visible()
    (seq,) = _defer(journey.plant, pictures, 1)
    expect(journey.page.locator(".item:not([hidden])")).to_have_attribute("data-seq", str(seq))
    expect(journey.page.locator("#review-empty")).to_be_hidden()
    expect(journey.page.locator(".badge").first).to_have_text("1")


def test_heard_word_is_played_and_corrected_by_its_own_digit(journey: Journey) -> None:
    plant, data = journey.plant, sound(3)
    plant.bundle(ref("spoken_digits"), task="keyword", labels=DIGITS)
    plant.enrol("phone-1", models=["spoken_digits"])
    plant.arrive("phone-1", data, "audio/wav")
    heard = plant.input_ref("a.wav", data, "audio/wav")
    scores = {"five": 0.5, "nine": 0.5}
    row = plant.deferral("phone-1", bundle=ref("spoken_digits"), label="nine", scores=scores, input=heard)
    plant.up("phone-1", [row])
    journey.open("/review")
    journey.wait_for("document.querySelector('.item audio').duration > 0.5")
    journey.page.keyboard.press("r")
    journey.wait_for("document.querySelector('.item audio').played.length > 0")
    journey.page.keyboard.press("5")
    wait_until(lambda: _answers(plant) == [(row.seq, "accept", "five")], 10, "the word to be kept")


def test_reviewer_signs_answers_and_keys_typed_into_the_name_answer_nothing(
    journey: Journey, pictures: list[bytes]
) -> None:
    _defer(journey.plant, pictures, 2)
    journey.open("/review")
    name = journey.page.get_by_label("You are")
    name.fill("")
    name.press_sequentially("pda")
    assert _answers(journey.plant) == []
    name.press("Tab")
    journey.page.locator(".item:not([hidden])").get_by_role("button", name="Pass").click()
    wait_until(lambda: len(_answers(journey.plant)) == 1, 10, "the answer to be kept")
    with journey.plant.services.store.read() as connection:
        assert connection.execute(tables.reviews.select()).one().reviewer == "pda"
    journey.open("/review")
    expect(journey.page.get_by_label("You are")).to_have_value("pda")
