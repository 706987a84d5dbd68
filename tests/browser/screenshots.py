"""Photographs every page of the console over sample data: light, dark and on a phone.

python -m tests.browser.screenshots OUT
"""

import argparse
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser

from tests.browser.sample_data import SampleClock, fill
from tests.browser.sample_watch import add_switch, add_watch
from tests.browser.served import browsing, served
from tests.cloud.console.plant import Plant

PAGES = {
    "fleet": "/",
    "device": "/devices/box-2",
    "device-refused": "/devices/box-3",
    "phone": "/devices/phone-1",
    "rollouts": "/rollouts",
    "rollout-failed": "/rollouts/phone_glass-1.2.0-5f3a1c",
    "rollout-running": "/rollouts/spoken_digits-1.1.0-5f3a1c",
    "review": "/review",
    "hear": "/review",
    "models": "/models",
    "model-one": "/models/phone_glass",
    "model-compare": "/models/phone_glass/compare?first=1.1.0&second=1.2.0",
    "rollout-done": "/rollouts/phone_glass-1.1.0-5f3a1c",
    "rollout-switch": "/rollouts/gearwheel-2.0.0-77aa01",
    "telemetry": "/telemetry?hours=1",
    "drift": "/drift",
    "alerts": "/alerts",
    "audit": "/audit",
    "people": "/people",
    "account": "/account",
    "cards": "/cards",
    "error": "/nowhere",
}
LOOKS = {
    "light": (1320, 860, "light"),
    "dark": (1320, 860, "dark"),
    "narrow": (390, 844, "light"),
    "narrow-dark": (390, 844, "dark"),
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--empty", action="store_true", help="of a control plane that nothing has happened on")
    parser.add_argument("--only", default="", help="pages whose name holds this")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    now_ms = time.time_ns() // 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        if not options.empty:
            fill(Path(folder), now_ms=now_ms)
        plant = Plant(Path(folder), SampleClock(now_ms))
        if not options.empty:
            add_switch(plant, taken_back=True)
            add_watch(plant)
        with served(plant) as url, browsing() as browser:
            for look in LOOKS:
                _photograph(browser, url, look, options.out, options.only)
        plant.close()


def _photograph(browser: Browser, url: str, look: str, out: Path, only: str) -> None:
    width, height, scheme = LOOKS[look]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    for name, path in PAGES.items():
        if only in name:
            page.goto(url + path)
            page.wait_for_timeout(300)
            if name == "review":
                while page.locator(".item:not([hidden]) .stage.sound").count():
                    page.keyboard.press("s")
                page.wait_for_timeout(200)
            if name == "models":
                page.locator("details").first.locator("summary").click()
            page.screenshot(path=out / f"{name}-{look}.png", full_page=name not in ("review", "hear"))
    page.close()


if __name__ == "__main__":
    main()
