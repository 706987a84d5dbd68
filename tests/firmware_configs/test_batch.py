"""A list of devices becomes their cards: whole and checked first, resumable, each with identity, receipt and label."""

import json
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner, Result

from firmware_configs.__main__ import app
from firmware_configs.label import draw, write_label
from firmware_configs.receipt import Receipt
from tests.cloud.process import ServeProcess
from tests.faults.plant import read_rows
from tests.firmware_configs.cards import CLAIM, MISSING, WHY, Card, boot_volume, read_in

needs_tools = pytest.mark.skipif(bool(MISSING), reason=WHY)
FINGERPRINT = "0123456789abcdef" * 4


class Desk:
    """Where somebody writes cards by a list."""

    def __init__(self, card: Card, folder: Path) -> None:
        self.card, self.folder = card, folder
        self.list = folder / "devices.csv"
        self.receipts, self.labels = folder / "receipts", folder / "labels"

    def run(self, text: str, *more: str) -> Result:
        self.list.write_text(text)
        usual = ["batch", str(self.list), "--receipts", str(self.receipts), "--image", str(self.card.image)]
        return CliRunner().invoke(app, [*usual, "--bundle", str(self.card.bundle), *more])

    def receipt(self, device: str) -> Receipt:
        return Receipt.model_validate_json((self.receipts / f"{device}.json").read_text())

    def states(self, done: Result) -> dict[str, str]:
        return {one["device"]: one["state"] for one in json.loads(done.stdout)}


def scan(label: Path) -> str:
    """Return what a scanner reads."""
    read = cv2.imread(str(label))
    assert read is not None and read.shape[:2] == (271, 696)
    return cv2.QRCodeDetector().detectAndDecode(read)[0]


@pytest.fixture
def desk(card: Card, tmp_path: Path) -> Desk:
    return Desk(card, tmp_path)


@needs_tools
def test_list_becomes_cards_and_the_same_command_goes_on_where_it_was_left(desk: Desk) -> None:
    text = "name,site,to\nbox-1,hall-a,1.img\nbox-2,,2.img\n"
    (desk.folder / "2.img").mkdir()  # this one fails
    first = desk.run(text, "--site", "hall-b", "--labels", str(desk.labels))
    assert first.exit_code == 1 and desk.states(first) == {"box-1": "written", "box-2": "failed"}
    assert "missing: box-2" in first.stderr
    (desk.folder / "2.img").rmdir()
    written = (desk.folder / "1.img").stat().st_mtime_ns
    again = desk.run(text, "--site", "hall-b", "--labels", str(desk.labels))
    assert again.exit_code == 0 and desk.states(again) == {"box-1": "there already", "box-2": "written"}
    assert (desk.folder / "1.img").stat().st_mtime_ns == written
    assert [desk.receipt(name).site for name in ("box-1", "box-2")] == ["hall-a", "hall-b"]
    assert desk.receipt("box-1").seed != desk.receipt("box-2").seed
    assert desk.receipt("box-1").disk != desk.receipt("box-2").disk
    for name in ("box-1", "box-2"):
        assert scan(desk.labels / f"{name}.png") == f"lineside/1/{name}/{desk.receipt(name).seed}"


def test_every_mistake_of_a_list_is_told_at_once_and_nothing_is_written(desk: Desk) -> None:
    done = desk.run(
        "name,to,claim,stations,profile\n"
        "box-1,1.img,,,\n"
        "Box 2,2.img,,,\n"
        "box-1,1.img,,,\n"
        "box-3,3.img,short,,\n"
        "box-4,,,,\n"
        "box-5,5.img,,missing.toml,\n"
        ",,,,\n"
        "box-6,6.img,,,rpi9\n",
        "--cloud",
        "https://192.0.2.10:8442",
        "--server",
        "http://127.0.0.1:9",
    )
    assert done.exit_code == 2 and not desk.receipts.exists()
    for words in (
        "line 3 (Box 2): name: expected lower case",
        "line 4 (box-1): the name stands in line 2 already",
        "line 4 (box-1): ",
        "is the card of line 2 already",
        "line 5 (box-3): --claim: this is no token",
        "line 6 (box-4): to: say in the list or for all",
        "line 7 (box-5): ",
        "missing.toml: cannot read",
        "line 9 (box-6): expected one of generic-arm64",
    ):
        assert words in done.stderr
    assert "line 8" not in done.stderr
    assert list(desk.folder.glob("*.img")) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected columns out of name"),
        ("name,colour\nbox-1,red\n", "unknown: 'colour'"),
        ("name,name\nbox-1,box-2\n", "each once"),
        ("to\n1.img\n", "`name` among them"),
        ("name,to\n", "no device"),
        ("name,to\nbox-1,1.img,more\n", "more cells than columns"),
        ('name,to\n"box-1,1.img\n', "this is no CSV"),
        ("name,to\n" + "".join(f"box-{n},{n}.img\n" for n in range(1001)), "at most 1000 devices"),
    ],
)
def test_file_that_is_no_list_is_refused_with_what_was_expected(desk: Desk, text: str, words: str) -> None:
    done = desk.run(text)
    assert done.exit_code == 2 and words in done.stderr


def test_claim_that_is_needed_and_not_there_is_a_mistake_of_the_list(desk: Desk) -> None:
    done = desk.run("name,to\nbox-1,1.img\n", "--cloud", "https://192.0.2.10:8442")
    assert done.exit_code == 2 and "nobody to ask: --server" in done.stderr


@needs_tools
def test_receipt_of_another_device_of_the_same_name_is_a_mistake_of_the_list(desk: Desk) -> None:
    assert desk.run("name,site,to\nbox-1,hall-a,1.img\n").exit_code == 0
    done = desk.run("name,site,to\nbox-1,hall-b,1.img\n")
    assert done.exit_code == 2 and "its receipt says x86-box at hall-a" in done.stderr
    (desk.receipts / "box-1.json").write_text("{}")
    done = desk.run("name,site,to\nbox-1,hall-a,1.img\n")
    assert done.exit_code == 2 and "is no receipt" in done.stderr


@needs_tools
def test_claims_come_from_the_control_plane_each_for_its_device_alone(desk: Desk, tmp_path: Path) -> None:
    with ServeProcess(tmp_path / "cloud", "--broker-port", "0") as cloud:
        server = str(cloud.addresses["url"])
        text = f"name,site,to,claim\nbox-1,hall-a,1.img,\nbox-2,hall-a,2.img,{CLAIM}\n"
        done = desk.run(text, "--cloud", "https://192.0.2.10:8442", "--server", server)
        assert done.exit_code == 0, done.stderr
        claims = [
            read_in(boot_volume(desk.folder / f"{n}.img", tmp_path / "boot"), "lineside/claim").strip() for n in (1, 2)
        ]
        assert claims[1] == CLAIM and claims[0] != CLAIM and len(claims[0]) > 20
        database = cloud.data_dir / "cloud.sqlite"
        (made,) = read_rows(database, "SELECT data FROM audit_log WHERE what = 'claim_created'")
        assert json.loads(made[0])["device"] == "box-1"


def test_control_plane_that_refuses_or_is_away_costs_the_card_and_is_told(desk: Desk) -> None:
    order = ["--cloud", "https://192.0.2.10:8442", "--server", "http://127.0.0.1:9"]
    done = desk.run("name,to\nbox-1,1.img\n", *order)
    assert done.exit_code == 1 and "gives no claim for box-1" in done.stderr
    assert not (desk.folder / "1.img").exists()


@pytest.mark.parametrize("name", ["b", "box-7", "a" * 63])
def test_label_is_read_by_a_scanner_and_fits_whatever_the_name(tmp_path: Path, name: str) -> None:
    write_label(tmp_path / "l.png", name, "Halle für Gläser " * 5, FINGERPRINT)
    assert scan(tmp_path / "l.png") == f"lineside/1/{name}/{FINGERPRINT}"
    right = draw(name, "x" * 100, FINGERPRINT).crop((688, 0, 696, 271))
    assert right.getextrema() == (1, 1)  # nothing but white at the edge
