"""Configuration: the samples are complete and right, and mistakes are named, all at once."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from edge.config import (
    CloudSection,
    DeviceSection,
    LinkSection,
    LocalSection,
    LogSection,
    ProbationSection,
    StationSection,
    StoreSection,
    load_config,
)
from edge.errors import ConfigError

SAMPLES = Path(__file__).parents[2] / "firmware_configs" / "samples"
SECTIONS: dict[str, type[BaseModel]] = {
    "device": DeviceSection,
    "cloud": CloudSection,
    "store": StoreSection,
    "link": LinkSection,
    "log": LogSection,
    "local": LocalSection,
    "probation": ProbationSection,
    "station.main": StationSection,
}
SMALLEST = """
[device]
name = "box-1"
[station.main]
model = "glass"
source = { kind = "folder", path = "inbox" }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "box.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["box.toml", "phone.toml", "alone.toml"])
def test_sample_is_accepted(name: str) -> None:
    load_config(SAMPLES / name)


@pytest.mark.parametrize("section", SECTIONS)
def test_sample_of_the_box_names_every_key(section: str) -> None:
    text = (SAMPLES / "box.toml").read_text()
    missing = [key for key in SECTIONS[section].model_fields if f"{key} =" not in text and f".{key}]" not in text]
    assert missing == []


def test_sample_shows_the_defaults() -> None:
    config = load_config(SAMPLES / "box.toml")
    for shown, default in ((config.store, StoreSection()), (config.link, LinkSection())):
        assert shown == default
    assert config.probation == ProbationSection()


def test_smallest_file_is_enough(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, SMALLEST))
    assert config.cloud is None
    assert config.device.data == tmp_path / "data"
    assert config.station["main"].source["path"] == str(tmp_path / "inbox")


def test_all_mistakes_are_named_at_once_with_the_nearest_key(tmp_path: Path) -> None:
    text = SMALLEST.replace('name = "box-1"', 'name = "Box 1"\nprofil = "x"') + "deadline_ms = -1\n"
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, text))
    message = str(error.value)
    assert "3 mistake(s)" in message
    assert "device.name" in message and "'Box 1'" in message
    assert "device.profil: unknown key; did you mean 'profile'?" in message
    assert "station.main.deadline_ms" in message and "-1" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[device", "not TOML"),
        ("", "device: missing"),
        ('[device]\nname = "box-1"\n[station]\n', "station"),
        ("\xff", "device: missing|not TOML"),
    ],
    ids=["syntax", "empty", "no station", "odd characters"],
)
def test_file_that_makes_no_sense_is_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(write(tmp_path, text))


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot read") as error:
        load_config(tmp_path / "nowhere.toml")
    assert "--config" in error.value.hint
