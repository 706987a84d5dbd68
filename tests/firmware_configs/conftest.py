"""A small image, so that writing is tested without building one."""

from pathlib import Path

import pytest

from firmware_configs.image.debian import load_image
from firmware_configs.profile import Profile, find_profile
from tests.firmware_configs.cards import Card, small_image


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image as `build` leaves it, with files that are no system."""
    folder = tmp_path_factory.mktemp("image")
    small_image(folder)
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
