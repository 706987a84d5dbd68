"""A card of a new device is asked for, watched while it is made, and downloaded, in a real browser."""

import gzip
from pathlib import Path

import pytest
from playwright.sync_api import expect

from cloud import tables
from edge.bundle import parse
from tests.browser.conftest import PATIENCE_MS, Journey
from tests.bundles import bundle_bytes
from tests.cloud.folk import person
from tests.firmware_configs.cards import MISSING, WHY, small_image

pytestmark = pytest.mark.browser
ADDRESS = "https://192.0.2.10:8442"


@pytest.fixture
def stocked(journey: Journey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journey:
    """A console with a published model, on a machine that has an image of the box."""
    image = tmp_path / "flash" / f"x86-box-{'0' * 16}"
    image.mkdir(parents=True)
    small_image(image)
    monkeypatch.setenv("LINESIDE_FLASH_CACHE", str(image.parent))
    services, data = journey.plant.services, bundle_bytes()
    bundle = parse(data)
    services.registry.blobs.put(data, digest=bundle.ref.digest)
    manifest = bundle.manifest.model_dump(mode="json")
    row = {**bundle.ref.model_dump(), "manifest": manifest, "published_at_ms": 0, "published_by": "ada"}
    with services.store.write() as connection:
        connection.execute(tables.bundles.insert().values(**row, state="approved", approved_at_ms=1))
    return journey


@pytest.mark.skipif(bool(MISSING), reason=WHY)
def test_card_is_asked_for_watched_and_downloaded(stocked: Journey, tmp_path: Path) -> None:
    page = stocked.page
    stocked.open("/")
    page.get_by_role("link", name="Cards", exact=True).click()
    page.get_by_label("Name").fill("box-7")
    page.get_by_label("Site").fill("hall-a")
    expect(page.get_by_label("Profile")).to_have_value("x86-box")
    page.get_by_label("This control plane").fill(ADDRESS)
    page.get_by_role("button", name="Make it").click()
    expect(page.locator("#made")).to_contain_text("being made")
    expect(page.get_by_label("Name")).to_have_value("")
    expect(page.get_by_label("Site")).to_have_value("hall-a")
    with page.expect_download(timeout=4 * PATIENCE_MS) as found:
        page.get_by_role("link", name="Download").click(timeout=4 * PATIENCE_MS)
    assert found.value.suggested_filename == "box-7.img.gz"
    found.value.save_as(tmp_path / "box-7.img.gz")
    with gzip.open(tmp_path / "box-7.img.gz") as disk:
        assert disk.read(1024)[512:520] == b"EFI PART"
    expect(page.locator("#made tr[data-state]")).to_have_count(0)


def test_board_without_an_image_says_how_and_a_mistake_stays_with_the_form(stocked: Journey) -> None:
    page = stocked.page
    stocked.open("/cards")
    page.get_by_label("Profile").select_option("rpi5")
    expect(page.get_by_label("What")).to_have_value("seed")
    expect(page.locator("#how")).to_contain_text("No image")
    expect(page.locator("select[name=system]")).to_be_visible()
    page.get_by_label("Profile").select_option("x86-box")
    page.get_by_label("What").select_option("image")
    expect(page.locator("select[name=system]")).to_be_hidden()
    page.get_by_label("Name").fill("box-7")
    page.get_by_label("Site").fill("hall\\a")
    page.get_by_label("This control plane").fill(ADDRESS)
    page.get_by_role("button", name="Make it").click()
    expect(page.locator("#wish-error")).to_contain_text("site: expected a name without quotes")
    expect(page.get_by_label("Name")).to_have_value("box-7")
    stocked.forgive("status of 422")


def test_viewer_sees_no_way_to_cards(journey: Journey) -> None:
    person(journey.plant.services, "vera", "viewer")
    journey.open("/login")
    page = journey.page
    page.get_by_label("Name").fill("vera")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("link", name="Fleet")).to_be_visible()
    expect(page.get_by_role("link", name="Cards", exact=True)).to_have_count(0)
    journey.open("/cards")
    expect(page.get_by_text("this is for the role operator")).to_be_visible()
    journey.forgive("status of 403")
