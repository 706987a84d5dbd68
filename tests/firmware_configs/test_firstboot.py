"""The first start on a device: what the card carries is taken in, whatever moment the power goes at."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.config import load_config
from firmware_configs.device import announce, firstboot
from firmware_configs.profile import find_profile
from firmware_configs.seed import Wanted, make_seed
from tests.bundles import bundle_bytes
from tests.firmware_configs.cards import CLAIM

SILENT: Callable[[str], None] = lambda _words: None  # noqa: E731


@pytest.fixture
def seed_dir(tmp_path: Path) -> Path:
    wanted = Wanted(
        "box-1",
        "hall-a",
        cloud="https://192.0.2.10:8442",
        claim=CLAIM,
        model="brightness",
        root=b"{}",
        bundles={"brightness-1.0.0.lsb": bundle_bytes()},
        inputs={"a.png": b"a", "b.png": b"b"},
        ssh_keys=("ssh-ed25519 AAAA me",),
    )
    folder = tmp_path / "efi"
    for name, content in make_seed(find_profile("x86-box"), wanted).files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "data" / "lineside"


def enrol(home: Path) -> None:
    path = home / firstboot.IDENTITY
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")


def test_first_start_lays_out_what_the_daemon_reads(seed_dir: Path, home: Path) -> None:
    assert firstboot.install(seed_dir, home, SILENT) == 0
    config = load_config(home / "box.toml")
    assert config.cloud is not None
    assert (config.device.name, config.cloud.claim) == ("box-1", CLAIM)
    assert config.cloud.root == home / "root.json"
    assert config.station["main"].bundle == home / "brightness-1.0.0.lsb"
    assert (home / "brightness-1.0.0.lsb").read_bytes() == bundle_bytes()
    assert sorted(path.name for path in (home / "inbox").iterdir()) == ["a.png", "b.png"]
    assert (home / "../os/ssh/authorized_keys").read_text() == "ssh-ed25519 AAAA me\n"


def test_keys_of_those_who_may_log_in_stay_roots(seed_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Path] = []
    monkeypatch.setattr(firstboot, "_own", given.append)
    firstboot.install(seed_dir, home, SILENT)
    assert home in given
    assert [path for path in given if "ssh" in path.parts] == []  # sshd refuses keys that others may change


def test_second_start_changes_nothing(seed_dir: Path, home: Path) -> None:
    firstboot.install(seed_dir, home, SILENT)
    (home / "inbox" / "a.png").unlink()  # decided and moved away
    (home / "box.toml").write_text("# mended at the device\n")
    assert firstboot.install(seed_dir, home, SILENT) == 0
    assert not (home / "inbox" / "a.png").exists()
    assert (home / "box.toml").read_text() == "# mended at the device\n"


def test_power_cut_at_any_write_ends_in_the_same_after_the_next_start(
    seed_dir: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    firstboot.install(seed_dir, tmp_path / "whole" / "lineside", SILENT)
    whole = contents(tmp_path / "whole")
    real, cuts = os.fsync, 0

    class PowerCut(BaseException):
        pass

    for cut in range(200):
        left = cut

        def fsync(descriptor: int) -> None:
            nonlocal left
            if left == 0:
                raise PowerCut
            left -= 1
            real(descriptor)

        place = tmp_path / f"cut-{cut}"
        monkeypatch.setattr(os, "fsync", fsync)
        try:
            firstboot.install(seed_dir, place / "lineside", SILENT)
        except PowerCut:
            cuts += 1
        else:
            break
        monkeypatch.setattr(os, "fsync", real)
        assert not (place / "lineside" / firstboot.DONE_MARK).exists() or contents(place) == whole
        assert firstboot.install(seed_dir, place / "lineside", SILENT) == 0
        assert {name: content for name, content in contents(place).items() if not name.endswith(".new")} == whole
    assert cuts >= 14  # two for each of seven files


def test_damaged_bundle_is_left_out_and_told_and_the_rest_is_taken(seed_dir: Path, home: Path) -> None:
    (seed_dir / "brightness-1.0.0.lsb").write_bytes(b"flipped")
    told: list[str] = []
    assert firstboot.install(seed_dir, home, told.append) == 1
    assert told == ["brightness-1.0.0.lsb on the boot partition is damaged; it is left out: write the card again"]
    assert not (home / "brightness-1.0.0.lsb").exists()
    assert (home / "root.json").exists()
    assert load_config(home / "box.toml").device.name == "box-1"


def test_claim_stays_until_the_device_is_enrolled(seed_dir: Path, home: Path) -> None:
    firstboot.install(seed_dir, home, SILENT)
    firstboot.wipe(seed_dir, home, SILENT)
    assert (seed_dir / "claim").exists()
    assert CLAIM in (home / "box.toml").read_text()


def test_claim_is_overwritten_and_gone_from_both_places_once_enrolled(
    seed_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    firstboot.install(seed_dir, home, SILENT)
    enrol(home)
    before: list[bytes] = []
    real = Path.unlink

    def unlink(path: Path, *, missing_ok: bool = False) -> None:
        if path.name == "claim":
            before.append(path.read_bytes())
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    firstboot.wipe(seed_dir, home, SILENT)
    assert set(before[0]) == {ord("0")}
    assert not (seed_dir / "claim").exists()
    config = load_config(home / "box.toml")
    assert config.cloud is not None
    assert config.cloud.claim is None
    assert [path for path in home.rglob("*") if path.is_file() and CLAIM.encode() in path.read_bytes()] == []


def test_power_cut_while_wiping_is_made_up_for(seed_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    firstboot.install(seed_dir, home, SILENT)
    enrol(home)

    def cut(_descriptor: int) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):
        patch.setattr(os, "fsync", cut)
        firstboot.wipe(seed_dir, home, SILENT)
    firstboot.install(seed_dir, home, SILENT)
    firstboot.wipe(seed_dir, home, SILENT)
    assert not (seed_dir / "claim").exists()
    assert "claim" not in (home / "box.toml").read_text()
    assert (home / firstboot.WIPED_MARK).exists()


def test_console_shows_the_first_decision_after_those_that_were_there(tmp_path: Path) -> None:
    import sqlite3

    record = tmp_path / "lineside.sqlite"
    url = f"file:{record}?mode=ro"
    assert announce.first_decision(url, 0) is None  # no record yet
    with sqlite3.connect(record) as connection:
        connection.execute("CREATE TABLE rows (seq INTEGER PRIMARY KEY, kind TEXT, body TEXT)")
        for seq, kind in ((1, "decision"), (2, "event"), (3, "decision")):
            body = {"monotonic_ms": 31_400 + seq, "verdict": "pass", "station": "main"}
            connection.execute("INSERT INTO rows VALUES (?, ?, ?)", (seq, kind, json.dumps(body)))
    found = announce.first_decision(url, 1)
    assert found is not None
    assert announce.line(found) == "lineside: first decision 31.4 s after the start: pass at main\n"
    assert announce.first_decision(url, 3) is None


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_console_shows_memory_and_what_listens_to_others_only(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal: 1000000 kB\nMemFree: 1 kB\nMemAvailable: 800000 kB\n")
    rows = ["0100007F:2120 00000000:0000 0A", "00000000:0016 00000000:0000 0A", "0F02000A:8000 0202000A:20F8 01"]
    (tmp_path / "net/tcp").write_text("\n".join(["sl local remote st", *(f"0: {row} 0" for row in rows)]))
    loopback = "00000000000000000000000001000000:2120 " + "0" * 32 + ":0000 0A"
    (tmp_path / "net/tcp6").write_text(f"sl local remote st\n0: {loopback} 0\n")
    assert announce.state(tmp_path) == "lineside: 195 MB of memory in use; listening to others on: 22\n"
