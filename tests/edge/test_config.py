"""Configuration: the samples are complete and right, and mistakes are named, all at once."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from edge.config import (
    AskSection,
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
    "station.main.ask": AskSection,
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


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_sample_is_accepted(path: Path) -> None:
    load_config(path)


HEARING = """
[device]
name = "box-1"
profile = "{profile}"
[station.main]
model = "words"
source = {source}
"""


@pytest.mark.parametrize(
    ("profile", "source", "kind"),
    [
        ("phone", '{ kind = "microphone" }', "cascade"),
        ("phone-sim", '{ kind = "audio_file", path = "a", segments = { hang_over_ms = 250 } }', "cascade"),
        ("phone-sim", '{ kind = "microphone", segments = { kind = "energy" } }', "energy"),
        ("phone", '{ kind = "microphone", segments = { begin = 0.6 } }', "cascade"),
        ("x86-box", '{ kind = "microphone", segments = { hang_over_ms = 250 } }', "energy"),
        ("generic", '{ kind = "microphone" }', "energy"),
    ],
)
def test_phones_listen_for_speech_unless_told_otherwise(tmp_path: Path, profile: str, source: str, kind: str) -> None:
    station = load_config(write(tmp_path, HEARING.format(profile=profile, source=source))).station["main"]
    segments = station.source.get("segments", {})
    assert segments.get("kind") == kind
    assert "hang_over_ms" not in source or segments["hang_over_ms"] == 250


def test_setting_of_another_segmenter_than_the_profiles_is_a_mistake_with_its_line(tmp_path: Path) -> None:
    source = '{ kind = "microphone", segments = { threshold_dbfs = -35 } }'
    with pytest.raises(ConfigError, match=r"line 7: station\.main\.source\.segments\.threshold_dbfs: unknown key"):
        load_config(write(tmp_path, HEARING.format(profile="phone", source=source)))


def test_file_that_is_one_window_stays_one_on_a_phone(tmp_path: Path) -> None:
    source = '{ kind = "audio_file", path = "a" }'
    assert (
        "segments"
        not in load_config(write(tmp_path, HEARING.format(profile="phone", source=source))).station["main"].source
    )


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


@pytest.mark.parametrize("cores", ["0", "-1", "1.5", "true", "[]", "[0, 0]", "[-1]", '"all"'])
def test_cores_that_mean_nothing_are_one_mistake_with_its_line(tmp_path: Path, cores: str) -> None:
    text = SMALLEST.replace('name = "box-1"', f'name = "box-1"\ncores = {cores}')
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    assert "1 mistake(s)" in str(caught.value) and "line 4: device.cores: " in str(caught.value)
    assert "expected how many cores, or a list of their numbers" in str(caught.value)


@pytest.mark.parametrize("cores", ["1", "[0]"])
def test_more_threads_than_cores_are_a_mistake(tmp_path: Path, cores: str) -> None:
    text = SMALLEST.replace('name = "box-1"', f'name = "box-1"\ncores = {cores}') + "threads = 2\n"
    text = text.replace(
        'source = { kind = "folder", path = "inbox" }\nthreads = 2', 'threads = 2\nsource.kind = "folder"'
    )
    with pytest.raises(ConfigError, match=r"station main: more threads than device\.cores allows, expected at most 1"):
        load_config(write(tmp_path, text))


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


ASKING = """
[station.main.ask]
url = "http://127.0.0.1:8470"
token_file = "server.key"
"""


def test_server_to_ask_is_read_with_its_bounds_and_its_token_beside_the_file(tmp_path: Path) -> None:
    ask = load_config(write(tmp_path, SMALLEST + ASKING)).station["main"].ask
    assert ask is not None and ask.token_file == tmp_path / "server.key"
    assert (ask.reasons, ask.timeout_ms, ask.review) == (("unsure", "out_of_distribution"), 2000.0, "keep")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('urll = "x"', "station.main.ask.urll: unknown key; did you mean 'url'"),
        ('reasons = ["tired"]', "station.main.ask.reasons.0"),
        ("max_waiting = 0", "station.main.ask.max_waiting"),
        ("timeout_ms = 0", "station.main.ask.timeout_ms"),
    ],
    ids=["key", "reason", "bound", "time-out"],
)
def test_mistake_about_the_server_is_named_with_its_place(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, SMALLEST + ASKING + line + "\n"))
    assert words in str(error.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8470", "ftp://server", "http://server/v1/decide"])
def test_address_of_the_server_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"station\.main\.ask\.url"):
        load_config(write(tmp_path, SMALLEST + ASKING.replace("http://127.0.0.1:8470", url)))


@pytest.mark.parametrize(
    ("kind", "said", "agreed"),
    [
        ("microphone", "", False),
        ("microphone", "sound_consent = true\n", True),
        ("http", "", False),
        ("http", "sound_consent = true\n", True),
        ("audio_file", "", True),
        ("audio_file", "sound_consent = false\n", False),
        ("replay", "", True),
        ("folder", "sound_consent = false\n", False),
        ("camera", "", False),
    ],
)
def test_sound_needs_consent_unless_the_operator_has_the_recording(
    tmp_path: Path, kind: str, said: str, agreed: bool
) -> None:
    place = {"http": "", "microphone": "", "camera": ", device = 0"}.get(kind, ', path = "inbox"')
    heard = SMALLEST.replace('kind = "folder", path = "inbox"', f'kind = "{kind}"{place}') + said
    assert load_config(write(tmp_path, heard + ASKING)).station["main"].sound_agreed is agreed


def test_stations_of_one_model_with_two_bundles_are_refused(tmp_path: Path) -> None:
    second = SMALLEST[SMALLEST.index("[station.main]") :].replace("station.main", "station.oven")
    texts = [f'{part.rstrip()}\nbundle = "{name}.lsb"\n' for part, name in ((SMALLEST, "one"), (second, "two"))]
    with pytest.raises(ConfigError, match="stations of one model share its bundle"):
        load_config(write(tmp_path, "".join(texts)))


def refused(tmp_path: Path, source: str, more: str = "") -> str:
    text = SMALLEST.replace('{ kind = "folder", path = "inbox" }', source) + more
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('{ kind = "foldr", path = "a" }', "source.kind: no source is called 'foldr'; did you mean 'folder'?"),
        ('{ path = "a" }', "source.kind: missing; known: audio_file, camera, folder"),
        ('{ kind = "folder", path = "a", patern = "*" }', "source.patern: unknown key; did you mean 'pattern'?"),
        ('{ kind = "folder" }', "source.path: missing"),
        ('{ kind = "http", port = 70000 }', "source.port: Input should be less than or equal to 65535, got 70000"),
        ('{ kind = "camera" }', "source: expected exactly one of device, url and path"),
        (
            '{ kind = "camera", device = 0, trigger = { kind = "line", prt = 1 } }',
            "source.trigger.prt: unknown key; did you mean 'port'?",
        ),
        ('{ kind = "camera", device = 0, trigger = { kind = "lin" } }', "trigger.kind: no trigger is called 'lin'"),
        (
            '{ kind = "microphone", segments = { kind = "cascade", begn = 0.5 } }',
            "source.segments.begn: unknown key; did you mean 'begin'?",
        ),
        ('{ kind = "microphone", segments = { frame = 1 } }', "segments.frame: unknown key; did you mean 'frame_ms'?"),
    ],
)
def test_mistake_within_a_source_is_named_with_its_line(tmp_path: Path, source: str, words: str) -> None:
    told = refused(tmp_path, source)
    assert words in told and "line 6: station.main.source" in told


def test_mistakes_of_every_part_are_told_together_in_the_order_of_the_file(tmp_path: Path) -> None:
    more = """deadline_ms = 1e9
[station.main.actuator]
kind = "modbus"
host = "plc"
[[station.main.mask]]
x = 0.1
y = 0.1
widht = 0.5
height = 0.5
"""
    told = refused(tmp_path, '{ kind = "folder", path = "a", lop = true }', more)
    assert "5 mistake(s)" in told
    places = ["source.lop", "deadline_ms", "actuator.coils", "mask.0.width: missing", "did you mean 'width'"]
    assert all(place in told for place in places), told
    lines = [line.split(":")[0] for line in told.splitlines()[1:]]
    assert lines == sorted(lines, key=lambda line: int(line.split()[-1]))


@pytest.mark.parametrize(
    ("first", "second", "local", "clash"),
    [
        ("port = 8470", "port = 8470", "", True),
        ("port = 8470", "port = 8471", "", False),
        ("port = 0", "port = 0", "", False),
        ("port = 8470", 'port = 8470, host = "0.0.0.0", token = "0123456789abcdef"', "", True),
        ("port = 8480", "port = 8471", "[local]\n", True),
        ("port = 8480", "port = 8471", '[local]\nlisten = "127.0.0.1:8481"\n', False),
    ],
)
def test_two_that_listen_on_one_port_are_a_mistake(
    tmp_path: Path, first: str, second: str, local: str, clash: bool
) -> None:
    other = f'[station.oven]\nmodel = "glass"\nsource = {{ kind = "http", {second} }}\n{local}'
    text = SMALLEST.replace('{ kind = "folder", path = "inbox" }', f'{{ kind = "http", {first} }}') + other
    if not clash:
        assert len(load_config(write(tmp_path, text)).station) == 2
        return
    with pytest.raises(ConfigError, match=r"1 mistake.*\n.*port \d+ is taken by .*; use another"):
        load_config(write(tmp_path, text))
