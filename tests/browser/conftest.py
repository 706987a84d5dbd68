"""One browser for the journeys of a module; a plant, served, and a page of its own for each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.served import CHROMIUM, browsing, served
from tests.clocks import HeldClock
from tests.cloud.console.plant import Plant
from tests.waiting import wait_until

PATIENCE_MS = 20_000
"""Longest wait for anything: tests share their processor with others."""


@dataclass
class Journey:
    """A person at a console."""

    page: Page
    plant: Plant
    clock: HeldClock
    url: str
    complaints: list[str]

    def open(self, path: str) -> None:
        """Go to a page of the console and wait until it is live."""
        self.page.goto(self.url + path)
        self.page.wait_for_load_state("load")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression of JavaScript is true; asked from outside, because the pages forbid `eval`."""
        wait_until(lambda: self.page.evaluate(expression), PATIENCE_MS / 1000, expression)

    def forgive(self, words: str) -> None:
        """Drop complaints that the journey itself provoked."""
        self.complaints[:] = [complaint for complaint in self.complaints if words not in complaint]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for longer than a module: while it is open, its event loop runs and nobody else can run one."""
    if not CHROMIUM.exists():
        pytest.skip(f"the journeys need a browser at {CHROMIUM}: apt-get install --no-install-recommends chromium")
    with browsing() as made:
        yield made


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
def plant(tmp_path: Path, clock: HeldClock) -> Iterator[Plant]:
    made = Plant(tmp_path, clock)
    yield made
    made.close()


@pytest.fixture
def journey(browser: Browser, plant: Plant, clock: HeldClock) -> Iterator[Journey]:
    """A page that fails its test if the browser has anything to complain about."""
    with served(plant) as url:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        complaints = watch(page)
        yield Journey(page, plant, clock, url, complaints)
        page.close()
        assert complaints == []


def watch(page: Page) -> list[str]:
    """Return a list that fills with what the browser complains about, and with requests to anywhere else."""
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(f"{m.type}: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(f"exception: {error}"))
    page.on("request", lambda r: None if r.url.startswith("http://127.0.0.1:") else complaints.append(f"asked {r.url}"))
    return complaints
