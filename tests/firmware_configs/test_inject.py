"""A stock system's image takes a device's identity in: real disks, looked into with other people's tools."""

import hashlib
import json
import os
import shutil
import struct
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edge.config import load_config
from firmware_configs.__main__ import app
from firmware_configs.device import firstboot
from firmware_configs.image.wheels import sha256
from tests.bundles import bundle_bytes
from tests.firmware_configs.cards import CLAIM, MISSING, WHY, names_in, read_in, table

ROOT = Path(__file__).parents[2]
MIB = 2**20
MACHINES = {"amd64": 0x3E, "arm64": 0xB7}
pytestmark = pytest.mark.skipif(bool(MISSING), reason=WHY)


def run(*command: str, text: str = "") -> str:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    environment = {**os.environ, "PATH": path, "MTOOLS_SKIP_CHECK": "1"}
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def stock_image(
    path: Path,
    table_kind: str,
    codename: str,
    machine: str,
    *,
    boot_mib: int,
    boot: dict[str, str],
    cloud_init: bool = True,
) -> Path:
    """Make a disk as a stock system's maker does: a boot partition and an ext4 root with a few telling files."""
    inside = path.with_suffix(".root")
    (inside / "usr/lib").mkdir(parents=True)
    (inside / "usr/bin").mkdir()
    (inside / "usr/lib/os-release").write_text(f"ID=debian\nVERSION_CODENAME={codename}\n")
    (inside / "usr/bin/env").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, MACHINES[machine]))
    if cloud_init:
        (inside / "usr/bin/cloud-init").write_text("#!/usr/bin/python3\n")
    fat, ext = path.with_suffix(".fat"), path.with_suffix(".ext")
    fat.touch()
    os.truncate(fat, boot_mib * MIB)
    run("mkfs.fat", "-F", "32" if boot_mib >= 40 else "16", "-s", "1", "-n", "bootfs", str(fat))
    for name, content in boot.items():
        run("mcopy", "-i", str(fat), "-", f"::{name}", text=content)
    ext.touch()
    os.truncate(ext, 8 * MIB)
    run("mke2fs", "-q", "-t", "ext4", "-d", str(inside), str(ext))
    path.touch()
    os.truncate(path, (2 + boot_mib + 8 + 2) * MIB)
    kinds = ("c", "83") if table_kind == "dos" else ("U", "L")
    begin = 1 + boot_mib
    lines = (f"start=1MiB, size={boot_mib}MiB, type={kinds[0]}", f"start={begin}MiB, size=8MiB, type={kinds[1]}")
    run("sfdisk", "--quiet", str(path), text="\n".join([f"label: {table_kind}", *lines, ""]))
    for source, seek in ((fat, 1), (ext, begin)):
        run("dd", f"if={source}", f"of={path}", f"seek={seek}", "bs=1M", "conv=notrunc,sparse", "status=none")
    return path


@dataclass
class Injector:
    """Types the command as a person does."""

    folder: Path
    bundle: Path
    words: tuple[str, ...]

    def inject(self, image: Path | None, profile: str, *more: str, to: str = "out.img") -> Result:
        words = ["inject", *([str(image)] if image else []), "--profile", profile, "--device-name", "box-7"]
        words += ["--to", str(self.folder / to), "--bundle", str(self.bundle), *self.words, *more]
        return CliRunner().invoke(app, words)

    @property
    def out(self) -> Path:
        return self.folder / "out.img"

    def volume(self, number: int) -> Path:
        """Cut a partition out of the new image."""
        part, cut = table(self.out)[number - 1], self.folder / f"volume-{number}"
        start, size = part["start"] // 2048, part["size"] // 2048
        run(
            "dd", f"if={self.out}", f"of={cut}", f"skip={start}", f"count={size}", "bs=1M", "conv=sparse", "status=none"
        )
        return cut


def wheel(path: Path, module: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{module}.py", f"NAME = {module!r}\n")
    return path


@pytest.fixture
def injector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Injector:
    """One with wheels that were downloaded before, of a few bytes."""
    lock, own, bundle = (
        tmp_path / "requirements.lock",
        tmp_path / "lineside-0.1.0-py3-none-any.whl",
        tmp_path / "b-1.0.0.lsb",
    )
    lock.write_text("some-thing==1.0 --hash=sha256:00\n")
    wheel(own, "lineside_itself")
    bundle.write_bytes(bundle_bytes())
    monkeypatch.setenv("LINESIDE_FLASH_CACHE", str(tmp_path / "cache"))
    for words in ("amd64-3.11-modbus-server", "arm64-3.13-gpio-modbus-server"):
        store = tmp_path / "cache" / "wheels" / f"{words}-{sha256(lock)[:16]}"
        store.mkdir(parents=True)
        wheel(store / "some_thing-1.0-py3-none-any.whl", "some_thing")
    return Injector(tmp_path, bundle, ("--wheel", str(own), "--lock", str(lock), "--cloud", "https://192.0.2.10:8442"))


@pytest.fixture
def pi(tmp_path: Path) -> Path:
    """As Raspberry Pi OS: its boot partition carries a seed and has room."""
    boot = {"user-data": "#cloud-config\n", "meta-data": "instance-id: rpios-image\n", "cmdline.txt": "quiet\n"}
    return stock_image(tmp_path / "pi.img", "dos", "trixie", "arm64", boot_mib=64, boot=boot)


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    """As a cloud's: a boot partition with a boot loader and hardly any room."""
    return stock_image(tmp_path / "cloud.img", "gpt", "bookworm", "amd64", boot_mib=5, boot={"BOOTX64.EFI": "x"})


def seed_out(volume: Path, folder: Path) -> Path:
    """Take the seed off a volume, as the device mounts it."""
    run("mcopy", "-s", "-i", str(volume), "::lineside", str(folder))
    return folder / "lineside"


def test_boot_partition_with_a_seed_and_room_takes_everything_and_the_rest_stays(
    injector: Injector, pi: Path, tmp_path: Path
) -> None:
    before = hashlib.sha256(pi.read_bytes()).hexdigest()
    done = injector.inject(
        pi, "rpi5", "--claim", CLAIM, "--wifi", "hall:passphrase", "--root", str(ROOT / "pyproject.toml")
    )
    assert done.exit_code == 0, done.output
    assert hashlib.sha256(pi.read_bytes()).hexdigest() == before
    assert [part["start"] for part in table(injector.out)] == [part["start"] for part in table(pi)]
    volume = injector.volume(1)
    run("fsck.fat", "-n", str(volume))
    assert names_in(volume) == [
        "cmdline.txt", "lineside/SHA256SUMS", "lineside/b-1.0.0.lsb", "lineside/box.toml", "lineside/claim",
        "lineside/install.sh", "lineside/root.json", "lineside/seed.json", "lineside/system.tar",
        "lineside/wheels/lineside-0.1.0-py3-none-any.whl", "lineside/wheels/some_thing-1.0-py3-none-any.whl",
        "meta-data", "network-config", "user-data",
    ]  # fmt: skip
    network = json.loads(read_in(volume, "network-config"))["network"]
    assert network["ethernets"]["wired"]["dhcp4"]
    assert network["wifis"]["wlan0"]["access-points"] == {"hall": {"password": "passphrase"}}
    assert CLAIM not in done.output and CLAIM not in read_in(volume, "user-data")
    number = run("blkid", "-p", "-s", "UUID", "-o", "value", str(volume)).strip()
    assert f"/dev/disk/by-uuid/{number} " in read_in(volume, "user-data")
    home = tmp_path / "data" / "lineside"
    assert firstboot.install(seed_out(volume, tmp_path), home, lambda _words: None) == 0
    config = load_config(home / "box.toml")
    assert config.cloud is not None and config.cloud.claim == CLAIM
    assert (home / "b-1.0.0.lsb").read_bytes() == bundle_bytes()


def test_cloud_image_gets_a_partition_at_the_end_and_its_root_can_still_grow(injector: Injector, cloud: Path) -> None:
    done = injector.inject(cloud, "x86-box", "--claim", CLAIM, "--size", "512M")
    assert done.exit_code == 0, done.output
    assert injector.out.stat().st_size == 512 * MIB
    run("sfdisk", "--verify", str(injector.out))
    before, after = table(cloud), table(injector.out)
    assert after[:2] == [{**part, "node": new["node"]} for part, new in zip(before, after, strict=False)]
    assert after[2]["start"] > 400 * 2048
    volume = injector.volume(3)
    run("fsck.fat", "-n", str(volume))
    assert run("blkid", "-p", "-s", "LABEL", "-o", "value", str(volume)).strip() == "CIDATA"
    assert {"user-data", "meta-data", "network-config", "lineside/claim"} <= set(names_in(volume))


def test_boot_partition_with_a_seed_and_no_room_points_to_a_partition_that_has(
    injector: Injector, tmp_path: Path
) -> None:
    image = stock_image(tmp_path / "x.img", "dos", "trixie", "arm64", boot_mib=4, boot={"user-data": "#cloud-config\n"})
    injector.bundle.write_bytes(bundle_bytes())
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(bytes(4 * MIB))
    words = ("--inputs", str(tmp_path / "pictures"), "--claim", CLAIM)
    assert "--size" in injector.inject(image, "rpi5", *words).output
    assert not injector.out.exists()
    done = injector.inject(image, "rpi5", *words, "--size", "256M")
    assert done.exit_code == 0, done.output
    payload = injector.volume(3)
    number = run("blkid", "-p", "-s", "UUID", "-o", "value", str(payload)).strip()
    assert run("blkid", "-p", "-s", "LABEL", "-o", "value", str(payload)).strip() == "LINESIDE"
    assert number in read_in(injector.volume(1), "user-data")
    assert "user-data" not in names_in(payload)


def test_seed_of_its_own_is_a_disk_that_cloud_init_finds(injector: Injector) -> None:
    done = injector.inject(None, "x86-box", "--claim", CLAIM, "--system", "bookworm")
    assert done.exit_code == 0, done.output
    assert run("blkid", "-p", "-s", "LABEL", "-o", "value", str(injector.out)).strip() == "CIDATA"
    assert "lineside/install.sh" in names_in(injector.out)
    again = injector.inject(None, "x86-box", "--claim", CLAIM, "--system", "bookworm")
    assert again.exit_code == 3


@pytest.mark.skipif(shutil.which("cloud-init") is None, reason="apt-get install cloud-init")
@pytest.mark.parametrize("more", [(), ("--ssh-key", "KEY")], ids=["nobody", "a key"])
def test_cloud_init_finds_no_fault_with_the_user_data(
    injector: Injector, tmp_path: Path, more: tuple[str, ...]
) -> None:
    key = tmp_path / "key.pub"
    key.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me@here\n")
    words = [str(key) if word == "KEY" else word for word in more]
    assert injector.inject(None, "x86-box", "--claim", CLAIM, "--system", "bookworm", *words).exit_code == 0
    file = tmp_path / "user-data"
    file.write_text(read_in(injector.out, "user-data"))
    assert "Valid" in run("cloud-init", "schema", "--config-file", str(file))
    said = json.loads(file.read_text().split("\n", 1)[1])
    assert ("ssh_authorized_keys" in said) == bool(more)
    assert said["ssh_pwauth"] is False and "password" not in file.read_text()


def test_device_takes_the_payload_in_once_whatever_moment_the_power_goes_at(injector: Injector, tmp_path: Path) -> None:
    assert injector.inject(None, "x86-box", "--claim", CLAIM, "--system", "bookworm").exit_code == 0
    seed, root = seed_out(injector.out, tmp_path), tmp_path / "system"
    site = root / "opt/lineside/site"
    (root / "usr/lib").mkdir(parents=True)
    (root / "opt/lineside/site.new/half").mkdir(parents=True)  # as an earlier try left it
    said = run("sh", str(seed / "install.sh"), str(seed), str(root))
    assert "took the payload in" in said
    assert sorted(path.name for path in site.glob("*.py")) == ["lineside_itself.py", "some_thing.py"]
    assert (root / "etc/systemd/system/efi.mount").is_file()
    assert (root / "etc/lineside").readlink() == Path("/data/lineside")
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    assert all((root / str(link.readlink()).lstrip("/")).is_file() for link in wanted.iterdir())
    assert os.access(root / "opt/lineside/bin/lineside-edge", os.X_OK)
    (site / "mark.py").touch()
    assert run("sh", str(seed / "install.sh"), str(seed), str(root)) == ""
    assert (site / "mark.py").exists(), "what is done was done again"
    (root / "opt/lineside/.installed").write_text("another one\n")
    run("sh", str(seed / "install.sh"), str(seed), str(root))
    assert not (site / "mark.py").exists()


def test_damaged_payload_is_not_taken_in(injector: Injector, tmp_path: Path) -> None:
    assert injector.inject(None, "x86-box", "--claim", CLAIM, "--system", "bookworm").exit_code == 0
    seed, root = seed_out(injector.out, tmp_path), tmp_path / "system"
    root.mkdir()
    (seed / "wheels/some_thing-1.0-py3-none-any.whl").write_bytes(b"torn")
    done = subprocess.run(
        ["sh", str(seed / "install.sh"), str(seed), str(root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "damaged" in done.stdout
    assert not (root / "opt").exists()


def test_image_that_cannot_take_a_seed_is_refused_with_every_reason(injector: Injector, tmp_path: Path) -> None:
    old = stock_image(tmp_path / "old.img", "dos", "bullseye", "amd64", boot_mib=4, boot={}, cloud_init=False)
    done = injector.inject(old, "rpi5", "--claim", CLAIM)
    assert done.exit_code == 2
    for words in ("got bullseye", "no cloud-init", "it is for amd64"):
        assert words in done.output
    assert sorted(path.name for path in tmp_path.glob("*out.img*")) == []


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\xfd7zXZ\x00", "xz -d"),
        (b"QFI\xfb", "qemu-img convert"),
        (bytes(600), "no partitions"),
        (None, "cannot read"),
    ],
)
def test_file_that_is_no_disk_is_told_what_to_do_with(
    injector: Injector, tmp_path: Path, head: bytes | None, words: str
) -> None:
    image = tmp_path / "what.img"
    if head is not None:
        image.write_bytes(head)
    done = injector.inject(image, "x86-box", "--claim", CLAIM)
    assert done.exit_code == 2
    assert words in done.output
