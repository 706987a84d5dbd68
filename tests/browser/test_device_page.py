"""A person at a device: sees what it decides, answers by key and by touch, and nothing changes under the finger."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE_MS
from tests.edge.commands.test_infer import picture
from tests.edge.local.device import Running, running
from tests.waiting import wait_until


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as made:
        yield made


@pytest.fixture
def page(browser: Browser, device: Running) -> Iterator[Page]:
    with browser.new_context(has_touch=True) as context:
        made = context.new_page()
        made.set_default_timeout(PATIENCE_MS)
        made.goto(device.url)
        yield made


def waiting(device: Running) -> list[str]:
    return [row["input"]["name"] for row in device.state()["open"]]


def test_parts_are_answered_by_key_and_by_touch(device: Running, page: Page) -> None:
    expect(page.locator(".verdict")).to_have_text("defer")
    expect(page.locator("#open_count")).to_have_text("4")
    page.locator("#who").fill("Ada")
    page.locator("#who").blur()
    expect(page.locator("#said")).to_contain_text("5.png")
    page.keyboard.press(" ")
    expect(page.locator("#said")).to_contain_text("4.png")
    page.locator("button.divert").tap()
    expect(page.locator("#said")).to_contain_text("3.png")
    expect(page.locator("#open_count")).to_have_text("2")
    wait_until(lambda: waiting(device) == ["3.png", "2.png"], 20, "two answers to be on record")


def test_without_a_name_nothing_is_answered(device: Running, page: Page) -> None:
    expect(page.locator("#said")).to_contain_text("5.png")
    page.locator("button.pass").tap()
    expect(page.locator("#trouble")).to_contain_text("your name")
    assert len(waiting(device)) == 4


def test_part_that_is_looked_at_stays_when_a_newer_one_comes(device: Running, page: Page) -> None:
    expect(page.locator("#said")).to_contain_text("5.png")
    picture(device.folder / "inbox" / "6.png", 128)
    expect(page.locator("#open_count")).to_have_text("5")
    expect(page.locator("#said")).to_contain_text("5.png")
