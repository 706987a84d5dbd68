"""Profiles: those that come with the program are sound, and a wrong one tells all its mistakes at once."""

from pathlib import Path

import pytest

from firmware_configs.errors import ConfigError
from firmware_configs.profile import PROFILES, all_profiles, find_profile, load_profile


def changed(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = (PROFILES / "x86-box.toml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_every_kind_of_device_has_a_profile() -> None:
    assert [profile.name for profile in all_profiles()] == ["generic-arm64", "phone-sim", "rpi4", "rpi5", "x86-box"]


def test_device_of_which_no_image_is_made_says_what_a_person_does() -> None:
    for profile in all_profiles():
        assert (profile.os is None) == bool(profile.board.how), profile.name


def test_profile_of_ones_own_is_named_by_its_file(tmp_path: Path) -> None:
    assert find_profile(str(changed(tmp_path))).name == "mine"


def test_wrong_fields_are_all_told_at_once(tmp_path: Path) -> None:
    path = changed(tmp_path, ("total_mb = 2048", "total_mb = 1"), ('"amd64"', '"vax"'), ("watchdog_s", "watchdog"))
    with pytest.raises(ConfigError) as caught:
        load_profile(path)
    text = str(caught.value)
    assert "4 mistake(s)" in text
    for place in ("memory.total_mb", "board.architecture", "power.watchdog_s", "power.watchdog:"):
        assert place in text


def test_budget_beyond_the_board_is_told_all_at_once(tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        (
            "[budget]\ncores = 2\nthreads = 1\nmodel_memory_mb = 512",
            "[budget]\ncores = 8\nthreads = 9\nmodel_memory_mb = 2000",
        ),
    )
    with pytest.raises(ConfigError) as caught:
        load_profile(path)
    for words in ("budget.cores: expected at most", "budget.threads", "budget.model_memory_mb: expected at most 1748"):
        assert words in str(caught.value)


def test_unknown_profile_names_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"generic-arm64, phone-sim, rpi4, rpi5, x86-box, got 'rpi3'"):
        find_profile("rpi3")


def test_file_that_is_no_toml_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("board =")
    with pytest.raises(ConfigError, match="not TOML"):
        load_profile(tmp_path / "x.toml")
