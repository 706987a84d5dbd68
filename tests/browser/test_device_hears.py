"""A person at a device that hears: three keys that fit words, any other word by touch, words for what is not kept."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from edge.store import Store
from edge.wire.rows import ANSWERED_EVENT, EventRow
from tests.browser.conftest import PATIENCE_MS
from tests.browser.conftest import watch as complaints_of
from tests.clocks import HeldClock
from tests.edge.local.device import Running, hearing, running
from tests.waiting import wait_until


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[Running]:
    with hearing(tmp_path) as made:
        yield made


def opened(browser: Browser, device: Running) -> tuple[Page, list[str]]:
    page = browser.new_context(has_touch=True).new_page()
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    complaints = complaints_of(page)
    page.goto(device.url)
    return page, complaints


def answers(device: Running) -> list[tuple[str, str | None]]:
    with Store.open_read_only(device.folder / "data" / "lineside.sqlite", clock=HeldClock()) as store:
        rows = store.rows(kind="event", limit=1000)
    given = [row.data for row in rows if isinstance(row, EventRow) and row.name == ANSWERED_EVENT]
    return [(data["answer"], data.get("label")) for data in given]


def test_word_is_accepted_or_another_is_named_by_key_and_by_touch(browser: Browser, phone: Running) -> None:
    page, complaints = opened(browser, phone)
    heard = [row["label"] for row in phone.state()["open"]]
    expect(page.locator("#yes")).to_have_text(f"A “{heard[0]}”")
    expect(page.locator("#no")).to_have_text("W wrong")
    expect(page.locator("#sound")).to_be_visible()
    page.locator("#who").fill("Ada")
    page.locator("#who").blur()
    page.keyboard.press("a")
    expect(page.locator("#open_count")).to_have_text("2")
    other = next(word for word in ("8", "5") if word != heard[1])
    page.locator("#words button", has_text=re.compile(f"^{other}$")).tap()
    expect(page.locator("#open_count")).to_have_text("1")
    box = page.locator("#words button").first.bounding_box()
    assert box is not None and box["height"] >= 48 and box["width"] >= 48
    page.keyboard.press("w")
    expect(page.locator("#open_count")).to_have_text("0")
    wait_until(lambda: len(answers(phone)) == 3, 20, "three answers to be on record")
    assert answers(phone) == [("accept", heard[0]), ("accept", other), ("divert", None)]
    assert complaints == []
    page.context.close()


@pytest.mark.parametrize("keep", ["none", "features"])
def test_part_whose_picture_is_not_kept_is_said_in_words_and_answered(
    browser: Browser, tmp_path: Path, keep: str
) -> None:
    with running(tmp_path, station=f'keep = "{keep}"') as device:
        page, complaints = opened(browser, device)
        expect(page.locator("#unseen")).to_have_text("Its picture is not kept at this station.")
        expect(page.locator("#picture")).to_be_hidden()
        expect(page.locator("#yes")).to_have_text("P pass")
        expect(page.locator("#words")).to_be_hidden()
        page.locator("#who").fill("Ada")
        page.locator("#no").tap()
        wait_until(lambda: answers(device) == [("divert", None)], 20, "the answer to be on record")
        assert complaints == [], "nothing was asked for that is not there"
        page.context.close()
