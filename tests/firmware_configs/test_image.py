"""What an image is made of: recipe, wheels by their digests, the bill, and the units that are laid into it."""

import configparser
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from firmware_configs.errors import BuildError
from firmware_configs.image import bill, debian, make, wheels
from firmware_configs.image.recipe import Recipe, bootstrap_command, packages, squash_command, wheel_platforms
from firmware_configs.image.sources import kept_image, sources_digest
from firmware_configs.profile import Architecture, Profile, find_profile

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "firmware_configs/rootfs/usr/lib/systemd/system").glob("lineside-*"))


@pytest.fixture
def recipe() -> Recipe:
    profile = find_profile("x86-box")
    assert profile.os is not None
    return Recipe("x86-box", "amd64", profile.os, (("a.whl", "1" * 64),), (("etc/fstab", "2" * 64),), ("deb x y z",), 1)


def test_equal_recipes_have_one_name_and_any_change_another(recipe: Recipe) -> None:
    assert recipe.digest == replace(recipe).digest
    changes = [
        replace(recipe, wheels=(("a.whl", "3" * 64),)),
        replace(recipe, files=(("etc/fstab", "3" * 64),)),
        replace(recipe, epoch=2),
        replace(recipe, mirrors=("deb x y w",)),
        replace(recipe, os=recipe.os.model_copy(update={"packages": ["nano"]})),
    ]
    assert len({recipe.digest, *(changed.digest for changed in changes)}) == 6


def test_wheels_for_a_newer_c_library_than_the_suites_are_not_taken() -> None:
    tags = wheel_platforms("arm64", "bookworm")
    assert tags[0] == "manylinux_2_36_aarch64"
    assert "manylinux_2_17_aarch64" in tags
    assert not [tag for tag in tags if "2_37" in tag or "x86_64" in tag]


def test_same_files_with_other_times_and_another_order_are_packed_to_the_same_bytes(
    tmp_path: Path, recipe: Recipe
) -> None:
    def packed(name: str, modules: list[str], moment: int) -> list[str]:
        site = tmp_path / name
        for module in modules:
            (site / module).parent.mkdir(parents=True, exist_ok=True)
            (site / module).write_text(f"# {module}")
            os.utime(site / module, (moment, moment))
        archives = tmp_path / f"{name}-early.tar", tmp_path / f"{name}-overlay.tar"
        debian._write_early(archives[0], recipe)
        debian._write_overlay(archives[1], recipe, site)
        return [wheels.sha256(path) for path in archives]

    files = ["a/one.py", "a/two.py", "b/three.py"]
    first, again = packed("first", files, 1), packed("again", files[::-1], 10**9)
    assert first == again
    assert packed("other", files[:2], 1)[1] != first[1]


@pytest.mark.skipif(shutil.which("sqfstar") is None, reason="apt-get install squashfs-tools")
def test_same_archive_is_squashed_to_the_same_bytes(tmp_path: Path, recipe: Recipe) -> None:
    archive = tmp_path / "early.tar"
    debian._write_early(archive, recipe)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(recipe.epoch)}

    def squashed(name: str) -> str:
        with archive.open("rb") as source:
            command = squash_command(str(tmp_path / name))
            subprocess.run(command, stdin=source, env=environment, check=True, capture_output=True)
        return wheels.sha256(tmp_path / name)

    assert squashed("first") == squashed("again")


def test_first_program_of_a_start_leaves_what_it_does_not_know_to_the_usual_one() -> None:
    early = ROOT / "firmware_configs/rootfs/etc/initramfs-tools"
    subprocess.run(["sh", "-n", str(early / "lineside-init")], check=True)
    assert os.access(early / "hooks/lineside", os.X_OK), "initramfs-tools runs executable hooks only"
    text = (early / "lineside-init").read_text()
    assert text.count("|| usual") == 2
    assert text.rstrip().splitlines()[-1].startswith("exec run-init")


@pytest.mark.parametrize("differs", [False, True])
def test_second_build_that_differs_is_told_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_folder: Path, differs: bool
) -> None:
    from typer.testing import CliRunner

    from firmware_configs.__main__ import app

    monkeypatch.setenv("LINESIDE_FLASH_CACHE", str(tmp_path))
    lock = tmp_path / "requirements.lock"
    lock.touch()
    for name in ("site", "wheels"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(make, "gather", lambda *_: (lock, lock, 1))
    monkeypatch.setattr(make, "wheels_for", lambda *_: [])
    monkeypatch.setattr(wheels, "unpack", lambda *_: None)
    built: list[Path] = []

    def build(_recipe: object, _wheels: object, _site: object, final: Path, *_: object) -> Path:
        shutil.copytree(image_folder, final)
        if built and differs:
            (final / "initrd").write_bytes(b"other")
            document = json.loads((final / "manifest.json").read_text())
            document["files"]["initrd"] = {"size_bytes": 5, "sha256": wheels.sha256(final / "initrd")}
            (final / "manifest.json").write_text(json.dumps(document))
        built.append(final)
        return final

    monkeypatch.setattr(debian, "build", build)
    done = CliRunner().invoke(app, ["build", "x86-box", "--check"])
    assert len(built) == 2, done.output
    assert (done.exit_code, built[1].exists()) == ((1, True) if differs else (0, False))
    assert ("initrd" in done.stdout) == differs


def test_root_has_no_password_and_the_packages_that_a_start_needs(recipe: Recipe) -> None:
    assert {"systemd-boot", "e2fsprogs", "python3", "linux-image-amd64"} <= set(packages(recipe.os))
    command = bootstrap_command(recipe, "/out", "/work", "/scripts")
    assert command[0] == "mmdebstrap"
    assert "usermod -p '*' root" in (ROOT / "firmware_configs/image/finish.sh").read_text()


def test_wheel_with_another_digest_than_the_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    lock = tmp_path / "requirements.lock"
    good = hashlib.sha256(b"good").hexdigest()
    lock.write_text(f"some-thing==1.0 \\\n    --hash=sha256:{good}\n")

    def fetched(content: bytes) -> list[Path]:
        out = tmp_path / content.decode()
        out.mkdir()
        (out / "some_thing-1.0-py3-none-any.whl").write_bytes(content)
        monkeypatch.setattr(wheels, "_run", lambda *_: None)
        return wheels.download(tmp_path / "lineside-0.1.0-py3-none-any.whl", lock, "amd64", recipe.os, out)

    assert [path.name for path in fetched(b"good")] == ["some_thing-1.0-py3-none-any.whl"]
    with pytest.raises(BuildError, match=r"not the files that requirements.lock names: some_thing"):
        fetched(b"evil")


def test_lock_file_of_the_project_is_read_whole() -> None:
    pins = wheels.locked((ROOT / "requirements.lock").read_text())
    assert {"numpy", "onnxruntime", "opencv-python-headless", "pydantic"} <= set(pins)
    assert all(hashes for _, hashes in pins.values())


def test_bill_names_every_package_with_version_and_licence() -> None:
    status = (
        "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2:2.36-9\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n"
        "Package: odd\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n"
    )
    dep5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-2+\n"
    found = bill.debian_components(status, {"libc6": dep5, "odd": "free text"})
    found.append(bill.wheel_component("Name: NumPy\nVersion: 2.4.6\nLicense-Expression: BSD-3-Clause\n\n"))
    assert [(c.name, c.version, c.licences) for c in found] == [
        ("libc6", "2:2.36-9", ("GPL-2+",)),
        ("odd", "1", ("see copyright file",)),
        ("numpy", "2.4.6", ("BSD-3-Clause",)),
    ]
    document = bill.cyclonedx("x86-box", "a" * 64, found)
    assert [c["purl"] for c in document["components"]] == [
        "pkg:deb/debian/libc6@2%3A2.36-9?arch=amd64", "pkg:deb/debian/odd@1?arch=all", "pkg:pypi/numpy@2.4.6",
    ]  # fmt: skip
    assert bill.cyclonedx("x86-box", "a" * 64, found[::-1]) == document
    assert bill.licence_list(found).count("\n") == 3


def test_image_whose_file_was_changed_is_refused(image_folder: Path, tmp_path: Path) -> None:
    for name in ("manifest.json", *debian.IMAGE_FILES):
        (tmp_path / name).write_bytes((image_folder / name).read_bytes())
    (tmp_path / "vmlinuz").write_bytes(b"other")
    with pytest.raises(BuildError, match=r"not what its manifest says: vmlinuz"):
        debian.load_image(tmp_path)


def test_missing_tool_is_named_with_its_package() -> None:
    with pytest.raises(BuildError) as caught:
        debian.need_tools({"no-such-tool-here": "some-package"})
    assert caught.value.hint == "apt-get install some-package"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_unit_of_the_image_is_enabled_and_runs_what_is_in_the_wheel(path: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    finish = (ROOT / "firmware_configs/image/finish.sh").read_text()
    if unit.has_section("Install"):
        assert path.stem in finish, "a unit with [Install] that nobody enables"
    command = unit.get("Service", "ExecStart", fallback="")
    module = re.search(r"-m (firmware_configs[.\w]+)", command) or re.search(
        r"site/(firmware_configs/[\w/]+)\.py", command
    )
    if module:
        assert (ROOT / f"{module[1].replace('.', '/')}.py").is_file()


def test_unit_that_reads_the_boot_partition_does_not_end_when_that_is_unmounted() -> None:
    readers = [path for path in UNITS if "/efi/" in path.read_text()]
    assert {path.stem for path in readers} == {"lineside-firstboot", "lineside-claim"}
    for path in readers:
        text = path.read_text()
        assert "Wants=efi.mount" in text and re.search(r"^After=.*\befi\.mount", text, re.MULTILINE), path.name
        assert not re.search(r"^(Requires|BindsTo|RequiresMountsFor)=.*efi", text, re.MULTILINE), path.name


def test_daemon_that_opens_a_bundle_slowly_twice_is_not_taken_for_hung() -> None:
    from edge.engines import START_TIMEOUT_S
    from edge.systemd import FEEDS_PER_TIMEOUT

    text = (ROOT / "firmware_configs/rootfs/etc/systemd/system/lineside.service.d/10-image.conf").read_text()
    watchdog_s = float(re.findall(r"^WatchdogSec=(\d+)$", text, re.MULTILINE)[0])
    assert watchdog_s - watchdog_s / FEEDS_PER_TIMEOUT > 1.5 * START_TIMEOUT_S


def test_scripts_of_the_build_are_sound_shell() -> None:
    for path in debian.script_files().values():
        subprocess.run(["sh", "-n", str(path)], check=True)
        assert path.stat().st_mode & 0o100, f"{path.name} is not executable"


def test_cleaning_a_root_leaves_the_settings_by_which_apt_knows_that_it_works_there(tmp_path: Path) -> None:
    for name in (
        "tmp/mmdebstrap.apt.conf.X1",
        "tmp/left",
        "var/log/apt.log",
        "etc/passwd-",
        "usr/lib/modules/6.1/kept",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run([debian.script_files()["clean.sh"], str(tmp_path)], check=True)
    kept = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert kept == ["tmp/mmdebstrap.apt.conf.X1", "usr/lib/modules/6.1/kept"]


def test_board_without_an_image_of_ours_says_what_a_person_does() -> None:
    from typer.testing import CliRunner

    from firmware_configs.__main__ import app

    for command in (["build", "rpi5"], ["write", "rpi5", "--to", "x.img", "--device-name", "a", "--model", "m"]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2
        assert "Raspberry Pi OS" in done.output


def test_machine_that_a_guest_is_proved_on_is_probed_and_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    from firmware_configs.prove import qemu

    def ends_with(code: int) -> object:
        return lambda command, **_: subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(Path, "exists", lambda _path: True)
    for code, expected in ((qemu.PROBE_CODE, "kvm"), (1, "tcg"), (-6, "tcg")):
        monkeypatch.setattr(subprocess, "run", ends_with(code))
        assert qemu.accelerator("amd64") == expected
    assert qemu.accelerator("arm64") == "tcg"


def _checkout(folder: Path) -> Path:
    for name in ("edge/a.py", "firmware_configs/b.py", "pyproject.toml", "requirements.lock"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def _keep_image(cache: Path, name: str, sources: str | None, age_s: int) -> Path:
    folder = cache / f"x86-box-{name * 16}"
    folder.mkdir()
    about = {"profile": "x86-box", "architecture": "amd64", "recipe": "0" * 64, "epoch": 1, "files": {}}
    (folder / "manifest.json").write_text(json.dumps(about | ({"sources": sources} if sources else {})))
    os.utime(folder / "manifest.json", (10**9 - age_s, 10**9 - age_s))
    return folder


def test_image_of_the_present_sources_is_taken_before_a_newer_one_of_others(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINESIDE_FLASH_CACHE", str(tmp_path))
    root = _checkout(tmp_path / "checkout")
    assert kept_image(profile, root) is None
    present = _keep_image(tmp_path, "a", sources_digest(profile, root), age_s=100)
    _keep_image(tmp_path, "b", "1" * 64, age_s=50)
    older = _keep_image(tmp_path, "c", None, age_s=0)
    found = kept_image(profile, root)
    assert found is not None and found.folder == present and not found.words
    (root / "edge" / "__pycache__").mkdir()
    (root / "edge" / "__pycache__" / "a.pyc").write_text("left behind")
    (root / "edge" / "README.md").write_text("words")
    assert kept_image(profile, root) == found
    (root / "edge" / "a.py").write_text("changed")
    found = kept_image(profile, root)
    assert found is not None and found.folder == older and "older image" in found.words


def test_processor_whose_programs_do_not_run_here_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    debian.need_processor("amd64" if platform.machine() == "x86_64" else "arm64")
    monkeypatch.setattr(debian, "INTERPRETERS", {"amd64": "true", "arm64": "true"})
    monkeypatch.setattr(debian, "FOREIGN_TOOLS", {})
    foreign: Architecture = "arm64" if platform.machine() == "x86_64" else "amd64"
    (tmp_path / "arch-test").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "arch-test").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(BuildError, match="do not run on this machine") as told:
        debian.need_processor(foreign)
    assert "binfmt" in (told.value.hint or "")


def test_driver_that_the_data_partition_is_made_with_is_loaded_by_the_unit_that_needs_it() -> None:
    masked = (ROOT / "firmware_configs/image/finish.sh").read_text()
    drop_in = ROOT / "firmware_configs/rootfs/etc/systemd/system/systemd-repart.service.d/10-image.conf"
    assert "modprobe@.service" in masked, "where it is there, the unit's own Wants= does it"
    assert "ExecStartPre=/usr/sbin/modprobe loop" in drop_in.read_text()


def test_boot_partition_writes_its_folders_at_once_so_that_a_rename_leaves_one_of_both_names() -> None:
    lines = (ROOT / "firmware_configs/rootfs/etc/fstab").read_text().splitlines()
    (options,) = [line.split()[3].split(",") for line in lines if " /efi vfat " in line]
    assert "dirsync" in options
