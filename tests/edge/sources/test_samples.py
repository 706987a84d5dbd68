"""The sample configuration names every setting of every source and trigger, and shows the defaults."""

import re
import tomllib
from pathlib import Path

import pytest

from edge.config import load_config
from edge.sources.settings import SETTINGS as WHOLE
from edge.sources.settings import AudioFileSettings, FileSettings
from edge.sources.triggers.settings import SETTINGS as TRIGGERS
from edge.voice.settings import SETTINGS as SEGMENTERS

SAMPLES = Path(__file__).parents[3] / "firmware_configs" / "samples"
BOX = (SAMPLES / "box.toml").read_text()
INLINE = {**TRIGGERS, **SEGMENTERS}


def part(kind: str) -> str:
    """Return the lines of one source in the sample of the box."""
    sources = BOX[BOX.index("[station.main.source]") : BOX.index("[station.main.actuator]")]
    return sources[sources.index(f'kind = "{kind}"') :].split("\n#\n# kind", 1)[0]


@pytest.mark.parametrize("kind", sorted(WHOLE.keys() - {"audio_file"}))
def test_sample_of_the_box_names_every_setting_of_a_source(kind: str) -> None:
    missing = [key for key in WHOLE[kind].model_fields if not re.search(rf"^(# )?{key} = ", part(kind), re.MULTILINE)]
    assert missing == []


@pytest.mark.parametrize("kind", INLINE)
def test_sample_of_the_box_names_every_setting_of_a_trigger_or_segmenter(kind: str) -> None:
    line = max((line for line in BOX.splitlines() if f'{{ kind = "{kind}"' in line), key=len)
    assert [key for key in INLINE[kind].model_fields if f" {key} = " not in line] == []


@pytest.mark.parametrize("kind", INLINE)
def test_sample_of_the_box_shows_a_trigger_or_segmenter_as_it_may_stand(kind: str) -> None:
    for line in BOX.splitlines():
        if found := re.search(rf'= (\{{ kind = "{kind}".*?\}})', line):
            values = tomllib.loads(f"it = {found[1]}")["it"]
            read = INLINE[kind].model_validate({key: value for key, value in values.items() if key != "kind"})
            if kind in SEGMENTERS and len(values) > 2:
                assert read == INLINE[kind]()


@pytest.mark.parametrize("kind", WHOLE)
def test_sample_of_the_box_names_no_setting_that_a_source_does_not_have(kind: str) -> None:
    named = re.findall(r"^(?:# )?(\w+) = ", part(kind), re.MULTILINE)
    assert named and set(named) - {"kind"} <= WHOLE[kind].model_fields.keys()


@pytest.mark.parametrize("kind", ["camera", "http", "microphone"])
def test_sample_of_the_box_shows_the_defaults_of_numbers(kind: str) -> None:
    for key, field in WHOLE[kind].model_fields.items():
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            found = re.search(rf"^# {key} = ([0-9._]+)", part(kind), re.MULTILINE)
            assert found is not None and float(found[1].replace("_", "")) == field.default, key


def test_sample_of_the_box_names_what_a_sound_file_has_beyond_a_folder() -> None:
    own = AudioFileSettings.model_fields.keys() - FileSettings.model_fields.keys()
    assert [key for key in own if not re.search(rf"^# {key} = ", part("audio_file"), re.MULTILINE)] == []


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_sample_is_accepted_with_its_source(path: Path) -> None:
    station = load_config(path).station["main"]
    settings = dict(station.source)
    WHOLE[settings.pop("kind")].model_validate(settings)
