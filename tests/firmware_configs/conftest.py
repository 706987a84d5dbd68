"""A small image, so that writing is tested without building one."""

import hashlib
import json
from pathlib import Path

import pytest

from firmware_configs.image.debian import load_image
from firmware_configs.profile import Profile, find_profile
from tests.firmware_configs.cards import Card


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image as `build` leaves it, with files that are no system."""
    folder = tmp_path_factory.mktemp("image")
    sizes = {"root.squashfs": 9 * 2**20 + 4096, "vmlinuz": 2**20, "initrd": 2**20 + 5, "boot.efi": 140_891}
    files = {}
    for name, size in sizes.items():
        block = hashlib.sha256(name.encode()).digest()
        content = (block * (size // 32 + 1))[:size]
        (folder / name).write_bytes(content)
        files[name] = {"size_bytes": size, "sha256": hashlib.sha256(content).hexdigest()}
    manifest = {
        "profile": "x86-box",
        "architecture": "amd64",
        "recipe": "0" * 64,
        "epoch": 1_795_816_357,
        "files": files,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    load_image(folder)
    return folder


@pytest.fixture
def profile() -> Profile:
    """The box's."""
    return find_profile("x86-box")


@pytest.fixture
def card(image_folder: Path, tmp_path: Path) -> Card:
    """Writes cards with that image."""
    return Card(image_folder, tmp_path)
