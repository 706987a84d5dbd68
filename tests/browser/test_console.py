"""Operating the fleet: pages that stay true by themselves, rollouts, every page without a complaint, on any screen."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from cloud import tables
from cloud.alerts.watch import AlertWatch
from tests.browser.conftest import Journey, watch
from tests.browser.sample_data import SampleClock, fill
from tests.browser.sample_rollouts import add_rollout
from tests.browser.served import served
from tests.cloud.console.plant import INTERVAL_S, Plant, ref
from tests.cloud.console.test_pages import PAGES
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

FAILING = {"deferral": ((26, 63), (9, 121)), "errors": ((0, 63), (0, 121))}


def test_device_goes_stale_and_comes_back_without_a_reload(journey: Journey) -> None:
    journey.plant.enrol("box-1")
    journey.plant.report("box-1")
    journey.open("/")
    journey.page.evaluate("window.same = true")
    row = journey.page.locator("tr[data-key=box-1]")
    expect(row).to_contain_text("fresh")
    journey.clock.forward(3 * INTERVAL_S + 1)
    expect(row).to_contain_text("stale since")
    expect(row.locator("time[data-as=ago]")).to_have_text(re.compile(r"^[1-9]\d\ss ago$"))
    expect(journey.page.locator("[data-key=work-away]")).to_contain_text("device not heard")
    journey.plant.report("box-1")
    expect(row).to_contain_text("fresh")
    expect(journey.page.locator("[data-key=work-away]")).to_contain_text("Every device is heard")
    assert journey.page.evaluate("window.same") is True


def test_age_counts_on_while_nothing_happens(journey: Journey) -> None:
    journey.plant.enrol("box-1")
    journey.plant.report("box-1", interval_s=600.0)
    journey.open("/")
    age = journey.page.locator("tr[data-key=box-1] time[data-as=ago]")
    expect(age).to_have_text(re.compile(r"^\d+\ss ago$"))
    journey.clock.forward(180)
    expect(age).to_have_text(re.compile(r"^3\smin ago$"))


def test_drift_and_decisions_appear_and_focus_stays_where_it_was(journey: Journey) -> None:
    plant = journey.plant
    for box in ("box-1", "box-2"):
        plant.enrol(box)
        plant.report(box)
    journey.open("/")
    journey.page.locator("tr[data-key=box-2] a").first.focus()
    told = {"detail": "brightness differs", "station": "belt", "model": "phone_glass", "data": {"metric": "brightness"}}
    plant.up("box-1", [plant.event("box-1", "drift_raised", "warning", **told), plant.deferral("box-1")])
    expect(journey.page.locator("tr[data-key=box-1]")).to_contain_text("drift: brightness")
    expect(journey.page.locator("[data-key=work-review]")).to_contain_text("1 item to review")
    expect(journey.page.locator("tr[data-key=box-2] a").first).to_be_focused()


def test_failing_gate_is_seen_with_its_evidence_and_the_reason_it_was_taken_back(journey: Journey) -> None:
    rollout = add_rollout(
        journey.plant, "phone_glass", "1.2.0", "rolled_back", 1, journey.clock.now_ms(), FAILING, "deferral fails"
    )
    journey.open("/rollouts")
    journey.page.get_by_role("link", name="phone glass 1.2.0").click()
    expect(journey.page).to_have_url(f"{journey.url}/rollouts/{rollout}")
    gate = journey.page.locator(".gate[data-verdict=fail]")
    expect(gate).to_contain_text("Deferred")
    expect(gate).to_contain_text("26 of 63")
    span, tolerance = gate.locator("line.span").bounding_box(), gate.locator("line.tolerance").bounding_box()
    assert span is not None and tolerance is not None
    assert span["x"] > tolerance["x"], "the interval lies beyond what is tolerated"
    expect(journey.page.locator("#why")).to_have_text("deferral fails")
    expect(journey.page.locator(".track li[data-state=failed]")).to_contain_text("Canary")
    expect(journey.page.get_by_role("button", name="Pause")).to_have_count(0)


def test_rollout_is_paused_and_resumed_with_a_reason(journey: Journey) -> None:
    add_rollout(journey.plant, "phone_glass", "1.1.0", "running", 1, journey.clock.now_ms(), {}, "canary")
    journey.open("/rollouts/phone_glass-1.1.0-5f3a1c")
    page = journey.page
    page.get_by_role("button", name="Pause").click()
    dialog = page.get_by_role("dialog", name="Pause this rollout")
    dialog.get_by_role("button", name="Pause").click()
    expect(dialog).to_be_visible()  # a reason is asked for
    dialog.get_by_label("Why").fill("the line is being cleaned")
    dialog.get_by_role("button", name="Pause").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#why")).to_contain_text("the line is being cleaned")
    page.get_by_role("button", name="Resume").first.click()
    page.get_by_role("dialog").get_by_label("Why").fill("clean")
    page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause").first).to_be_visible()
    with journey.plant.services.store.read() as connection:
        log = connection.execute(tables.audit_log.select().order_by(tables.audit_log.c.id)).all()
    assert [(line.what, line.why) for line in log] == [
        ("rollout_paused", "the line is being cleaned"),
        ("rollout_resumed", "clean"),
    ]


def test_alert_is_acknowledged_and_another_silenced_and_told_again_with_reasons(journey: Journey) -> None:
    for box in ("box-1", "box-2"):
        journey.plant.enrol(box)
        journey.plant.report(box)
    journey.clock.forward(1000)
    watch = AlertWatch(
        journey.plant.services.store, journey.clock, journey.plant.services.fleet, journey.plant.services.watched
    )
    watch.look()
    journey.open("/alerts")
    page = journey.page
    first, second = (
        page.locator("tr").filter(has_text="device-stale").filter(has_text=box) for box in ("box-1", "box-2")
    )
    first.get_by_role("button", name="Acknowledge").click()
    dialog = page.get_by_role("dialog", name="Acknowledge this alert")
    expect(dialog).to_contain_text("device-stale, box-1")
    dialog.get_by_label("Why").fill("the link is being mended")
    dialog.get_by_role("button", name="Acknowledge").click()
    expect(dialog).to_be_hidden()
    expect(first).to_contain_text("the link is being mended")
    second.get_by_role("button", name="Silence").click()
    dialog = page.get_by_role("dialog", name="Silence this alert")
    dialog.get_by_label("For").select_option("8 hours")
    dialog.get_by_label("Why").fill("hall 2 is rebuilt")
    dialog.get_by_role("button", name="Silence").click()
    expect(second).to_contain_text("silenced")
    silence = page.locator("li").filter(has_text="hall 2 is rebuilt")
    expect(silence).to_contain_text("device-stale, box-2")
    silence.get_by_role("button", name="End").click()
    expect(silence).to_have_count(0)
    expect(second.get_by_role("button", name="Silence")).to_be_visible()
    with journey.plant.services.store.read() as connection:
        log = connection.execute(tables.audit_log.select().order_by(tables.audit_log.c.id)).all()
    assert [(line.what, line.why) for line in log] == [
        ("alert_acknowledged", "the link is being mended"),
        ("alerts_silenced", "hall 2 is rebuilt"),
        ("silence_ended", ""),
    ]


def test_what_a_person_opened_stays_open_while_the_page_is_renewed(journey: Journey) -> None:
    journey.plant.bundle(ref())
    journey.open("/models")
    opened = journey.page.locator("details").first
    opened.locator("summary").click()
    expect(opened.get_by_role("heading", name="Guarantee")).to_be_visible()
    journey.plant.bundle(ref(version="1.1.0"))
    expect(journey.page.locator("details")).to_have_count(2)
    assert journey.page.evaluate("[...document.querySelectorAll('details')].map(d => d.open)") == [False, True]


def test_lost_control_plane_is_said_and_taken_back_when_it_answers(journey: Journey) -> None:
    journey.plant.enrol("box-1")
    journey.open("/")
    expect(journey.page.locator("#live")).to_have_text("live")
    journey.page.route("**/*", lambda route: route.abort())
    expect(journey.page.locator("#lost")).to_contain_text("No answer from the control plane since")
    expect(journey.page.locator("#live")).to_have_text("no answer")
    journey.page.unroute("**/*")
    expect(journey.page.locator("#lost")).to_be_hidden()
    expect(journey.page.locator("#live")).to_have_text("live")
    journey.forgive("net::ERR_FAILED")


def test_keyboard_alone_reaches_the_page_and_a_device(journey: Journey) -> None:
    journey.plant.enrol("box-1")
    journey.open("/")
    journey.page.keyboard.press("Tab")
    expect(journey.page.get_by_role("link", name="Skip to the page")).to_be_focused()
    journey.page.keyboard.press("Enter")
    device = journey.page.locator("tr[data-key=box-1] a")
    for _ in range(8):
        journey.page.keyboard.press("Tab")
        if device.evaluate("e => e === document.activeElement"):
            break
    assert device.evaluate("e => getComputedStyle(e).outlineStyle") == "solid", "focus is seen"
    journey.page.keyboard.press("Enter")
    expect(journey.page.get_by_role("heading", name="box-1")).to_be_visible()


@pytest.fixture(scope="module")
def sample_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("sample")
    now_ms = 1_790_000_000_000
    fill(folder, now_ms=now_ms, pictures=9, span_s=600)
    plant = Plant(folder, SampleClock(now_ms))
    with served(plant) as url:
        yield url
    plant.close()


@pytest.mark.parametrize(
    ("width", "height", "scheme"), [(1280, 800, "light"), (390, 844, "dark")], ids=["desk", "phone, dark"]
)
def test_every_page_shows_without_a_complaint_and_without_scrolling_sideways(
    browser: Browser, sample_url: str, width: int, height: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    complaints = watch(page)
    for path in PAGES:
        page.goto(sample_url + path)
        page.wait_for_load_state("load")
        expect(page.locator("#live")).to_have_text("live")
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")  # late pictures come now
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, f"{path} is {over} pixels too wide"
        assert complaints == [], path
    broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).length"
    page.goto(sample_url + "/devices/box-1")
    page.wait_for_load_state("load")
    assert page.evaluate(broken) == 0
    page.close()


def test_answers_are_reached_by_touch_on_a_phone(browser: Browser, sample_url: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(sample_url + "/review")
    item = page.locator(".item:not([hidden])")
    first = item.get_attribute("id")
    sizes = [button.bounding_box() for button in item.locator(".answer").all()]
    assert all(box is not None and box["height"] >= 44 and box["width"] >= 44 for box in sizes), "as large as a finger"
    with page.expect_response(lambda answer: "/v1/review/" in answer.url) as kept:
        item.locator(".answer").last.tap()
    assert kept.value.status == 201
    wait_until(lambda: page.locator(".item:not([hidden])").get_attribute("id") != first, 5, "the next item")
    context.close()


def test_words_stand_out_from_what_they_are_written_on(browser: Browser, sample_url: str) -> None:
    for scheme in ("light", "dark"):
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
        for path in ("/", "/devices/box-2", "/rollouts/phone_glass-1.2.0-5f3a1c", "/review", "/models"):
            page.goto(sample_url + path)
            weak = page.evaluate(_CONTRAST)
            assert weak == [], f"{path} in {scheme}"
        page.close()


_CONTRAST = """() => {
  const parse = (color) => (color.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length && (color.length < 4 || color[3] > 0.99)) return color;
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.nodeValue.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, kbd, .skip")) continue;
    const both = [light(parse(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
    const ratio = (both[0] + 0.05) / (both[1] + 0.05);
    const words = element.textContent.trim().slice(0, 30);
    if (ratio < 4.5) weak.push(`${element.className || element.nodeName}: ${words} ${ratio.toFixed(2)}`);
  }
  return [...new Set(weak)];
}"""
"""Names what has less contrast than WCAG 2 asks for (level AA, 4.5 to 1)."""
