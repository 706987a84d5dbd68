"""Cards for download: made by the real `lineside-flash`, with a claim of their own, sent once, and then gone."""

import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloud.config import CardsConfig
from tests.bundles import bundle_bytes
from tests.cloud.publishing import publish
from tests.cloud.serving import serving
from tests.cloud.world import World
from tests.faults.plant import read_rows
from tests.firmware_configs.cards import MISSING, WHY, read_in, small_image
from tests.waiting import wait_until

BOOT_AT, BOOT_BYTES = 2**20, 260 * 2**20
WISH = {
    "profile": "x86-box",
    "site": "hall-a",
    "device": "box-7",
    "model": "brightness",
    "version": "1.0.0",
    "cloud": "https://192.0.2.10:8442",
}
MADE_S = 120.0

needs_tools = pytest.mark.skipif(bool(MISSING), reason=WHY)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `lineside-flash` finds its images: a small one of the box."""
    folder = tmp_path / "flash" / f"x86-box-{'0' * 16}"
    folder.mkdir(parents=True)
    small_image(folder)
    monkeypatch.setenv("LINESIDE_FLASH_CACHE", str(folder.parent))
    return folder


@pytest.fixture
def made(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(tmp_path / "world", with_keys=True, cards=getattr(request, "param", CardsConfig()))
    publish(world, bundle_bytes())
    yield world
    world.close()


@pytest.fixture
def http(made: World, cache: Path) -> Iterator[httpx.Client]:
    with serving(made.services) as client:
        yield client


def ended(http: httpx.Client, card: str) -> dict[str, Any]:
    """Return a card once it is ready or has failed."""

    def found() -> dict[str, Any]:
        (one,) = [one for one in http.get("/v1/cards").json() if one["id"] == card]
        return dict(one)

    wait_until(lambda: found()["state"] in ("ready", "failed"), MADE_S, "the card")
    return found()


@needs_tools
def test_card_is_made_with_its_claim_sent_once_and_gone(made: World, http: httpx.Client, tmp_path: Path) -> None:
    asked = http.post("/v1/cards", json=WISH)
    assert asked.status_code == 202 and asked.json()["state"] == "waiting"
    card = ended(http, asked.json()["id"])
    assert card["state"] == "ready", card["words"]
    folder = made.config.data_dir / "cards" / card["id"]
    assert (folder / "disk.img").stat().st_size > 2**31 > 40 * (folder / "disk.img").stat().st_blocks * 512
    assert not (folder / "claim").exists()
    disk, sent = tmp_path / "disk.img", 0
    with http.stream("GET", f"/v1/cards/{card['id']}") as answer, disk.open("wb") as file:
        assert answer.headers["content-disposition"] == 'attachment; filename="box-7.img.gz"'
        reader = zlib.decompressobj(31)
        for chunk in answer.iter_raw():
            sent += len(chunk)
            while chunk and file.tell() < BOOT_BYTES:
                file.write(reader.decompress(chunk))
                chunk = reader.unused_data
                reader = zlib.decompressobj(31) if reader.eof else reader
    assert sent < 100 * 2**20
    volume = Path(f"{disk}@@{BOOT_AT}")
    assert json.loads(read_in(volume, "lineside/seed.json"))["id"] == card["fingerprint"]
    config = read_in(volume, "lineside/box.toml")
    assert 'name = "box-7"' in config and 'url = "https://192.0.2.10:8442"' in config and "root.json" in config
    assert len(read_in(volume, "lineside/claim")) > 20
    database = made.config.data_dir / "cloud.sqlite"
    rows = read_rows(database, "SELECT what, data FROM audit_log WHERE what IN ('claim_created', 'card_made')")
    assert [what for what, _ in rows] == ["claim_created", "card_made"]
    assert all(json.loads(data)["device"] == "box-7" for _, data in rows)
    wait_until(lambda: not folder.exists(), 10, "the file to be gone")
    assert http.get(f"/v1/cards/{card['id']}").status_code == 404
    assert http.get("/v1/cards").json() == []


@needs_tools
def test_download_that_is_broken_off_may_be_tried_again(made: World, http: httpx.Client) -> None:
    card = ended(http, http.post("/v1/cards", json=WISH).json()["id"])
    with http.stream("GET", f"/v1/cards/{card['id']}") as answer:
        next(answer.iter_raw())
    assert (made.config.data_dir / "cards" / card["id"] / "disk.img").exists()
    assert http.delete(f"/v1/cards/{card['id']}").status_code == 204
    assert not (made.config.data_dir / "cards" / card["id"]).exists()


MISTAKES: list[tuple[dict[str, str], int, str]] = [
    ({"device": "Box 7"}, 422, "device"),
    ({"site": 'a"b'}, 422, "site: expected a name without quotes"),
    ({"cloud": "192.0.2.10"}, 422, "address: expected one such as"),
    ({"profile": "rpi9"}, 422, "none is called 'rpi9'"),
    ({"profile": "rpi5"}, 422, "there is no image of rpi5 here"),
    ({"version": "9.9.9"}, 404, "brightness 9.9.9 has not been published"),
    ({"what": "seed", "system": "dos"}, 422, "system: expected one of"),
    ({"colour": "red"}, 422, "colour"),
]


def test_wish_that_cannot_be_made_is_refused_before_there_is_a_claim(made: World, http: httpx.Client) -> None:
    for changed, status, words in MISTAKES:
        answer = http.post("/v1/cards", json={**WISH, **changed})
        assert (answer.status_code, words in answer.text) == (status, True), answer.text
    database = made.config.data_dir / "cloud.sqlite"
    assert read_rows(database, "SELECT count(*) FROM audit_log WHERE what = 'claim_created'") == [(0,)]
    assert http.get("/v1/cards").json() == []


def _child(script: str) -> CardsConfig:
    listed = {"name": "x86-box", "board": {"title": "t", "boot": "uefi", "how": ""}, "image": "/i"}
    listing = f"print(json.dumps({{'profiles': [{listed!r}]}}))"
    words = f"import sys, json, time\nif sys.argv[1] == 'list': {listing}\nelse: {script}"
    return CardsConfig(command=[sys.executable, "-c", words], timeout_s=2.0, max_kept=2)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (_child("sys.exit('lineside-flash: the disk is full')"), "the disk is full"),
        (_child("time.sleep(60)"), "did not end within 2 s"),
        (_child("print('no JSON')"), "Expecting value"),
    ],
    indirect=["made"],
)
def test_child_that_fails_hangs_or_babbles_is_told_and_leaves_nothing(
    made: World, http: httpx.Client, words: str
) -> None:
    card = ended(http, http.post("/v1/cards", json=WISH).json()["id"])
    assert card["state"] == "failed" and words in card["words"]
    assert list((made.config.data_dir / "cards").iterdir()) == []


@pytest.mark.parametrize("made", [_child("time.sleep(60)")], indirect=True)
def test_no_more_cards_are_kept_than_allowed(http: httpx.Client) -> None:
    for name in ("box-1", "box-2"):
        assert http.post("/v1/cards", json={**WISH, "device": name}).status_code == 202
    refused = http.post("/v1/cards", json=WISH)
    assert refused.status_code == 429 and "2 cards are kept or wait" in refused.text


@pytest.mark.parametrize("made", [CardsConfig(command=["/nowhere/lineside-flash"])], indirect=True)
def test_machine_without_the_program_says_so(http: httpx.Client) -> None:
    wait_until(lambda: "lineside-flash cannot be started" in http.get("/cards").text, 20, "the page to say so")
    assert http.post("/v1/cards", json=WISH).status_code == 503


def test_start_forgets_what_an_earlier_one_left(tmp_path: Path) -> None:
    left = tmp_path / "world" / "data" / "cards" / "old"
    left.mkdir(parents=True)
    world = World(tmp_path / "world")
    assert not left.exists()
    world.close()
