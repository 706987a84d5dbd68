"""A person at a touch screen while the control plane is away sees that it is, answers, and nothing is lost."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from rich.console import Console

from edge.commands.watch import run as watch
from tests.browser.conftest import PATIENCE_MS
from tests.browser.conftest import watch as complaints_of
from tests.edge.command import edge
from tests.edge.local.device import Running, running
from tests.faults.plant import Cloud
from tests.waiting import wait_until

TABLET = {"width": 600, "height": 960}
"""A small screen bolted to a machine, upright."""


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with Cloud(tmp_path / "cloud") as made:
        yield made


@pytest.fixture
def device(tmp_path: Path, cloud: Cloud) -> Iterator[Running]:
    (tmp_path / "box").mkdir()
    with running(tmp_path / "box", cloud=cloud) as made:
        yield made


@pytest.fixture
def page(browser: Browser, device: Running) -> Iterator[Page]:
    with browser.new_context(has_touch=True, is_mobile=True, viewport=TABLET) as context:  # type: ignore[arg-type]
        made = context.new_page()
        made.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        complaints = complaints_of(made)
        made.goto(device.url)
        yield made
        assert complaints == []


def shown(device: Running) -> str:
    """Return a picture of `status --watch`."""
    out = io.StringIO()
    assert watch(device.folder / "box.toml", console=Console(file=out, width=140), frames=1) == 0
    return out.getvalue()


def stored(cloud: Cloud) -> list[tuple[str, str]]:
    return [(answer, who) for answer, who in cloud.rows("SELECT answer, reviewer FROM reviews ORDER BY at_ms")]


def test_answers_given_by_touch_while_the_control_plane_is_away_travel_up_when_it_is_back(
    device: Running, page: Page, cloud: Cloud
) -> None:
    link = page.locator("#link")
    expect(link).to_have_text(re.compile(r"^connected since \d\d:\d\d:\d\d · \d+ unsent"))
    assert "connected since" in shown(device) and "rows unsent" in shown(device)
    cloud.kill()
    expect(link).to_have_text(re.compile(r"^control plane away since \d\d:\d\d:\d\d · [1-9]\d* unsent"))
    assert re.search(r"AWAY since \d\d:\d\d:\d\d: .+ · [1-9]\d* rows unsent, oldest", shown(device))
    assert "AWAY since" in edge("status", "-c", "box.toml", cwd=device.folder).stdout

    expect(page.locator("#unseen")).to_be_visible()  # the newest is no picture
    page.locator("#who").tap()
    page.keyboard.type("Ada")
    for answer, left in (("pass", 3), ("divert", 2), ("cant_tell", 1)):
        page.locator(f"[data-answer={answer}]").tap()
        expect(page.locator("#open_count")).to_have_text(str(left))
    wait_until(lambda: len(device.state()["open"]) == 1, 20, "three answers to be on record")
    assert stored(cloud) == []

    cloud.start()
    expect(link).to_have_text(re.compile(r"^connected since"))
    wait_until(lambda: len(stored(cloud)) == 3, 60, "the answers in the cloud")
    assert stored(cloud) == [("pass", "Ada"), ("divert", "Ada"), ("cant_tell", "Ada")]
    wait_until(lambda: device.state()["reported"]["health"]["outbox_rows"] < 5, 60, "the rest to be stored")
    assert device.value("lineside_link_connected") == 1


def test_everything_is_large_enough_for_a_finger_and_nothing_runs_out_of_the_screen(page: Page) -> None:
    expect(page.locator("#said")).to_contain_text("5.png")
    for key in page.locator(".keys button").all():
        box = key.bounding_box()
        assert box is not None and box["height"] >= 48 and box["width"] >= 48
        assert box["x"] >= 0 and box["x"] + box["width"] <= TABLET["width"]
    assert page.evaluate("() => document.documentElement.scrollWidth") <= TABLET["width"]
    keys, stations = page.locator(".keys").bounding_box(), page.locator("#stations").bounding_box()
    assert keys is not None and stations is not None
    assert keys["y"] + keys["height"] <= TABLET["height"], "the keys are there without scrolling"
    assert keys["y"] < stations["y"], "what is to be answered comes first on a narrow screen"
