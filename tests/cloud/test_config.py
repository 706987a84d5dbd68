"""Settings: the sample is the reference, and wrong ones are named."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import cloud
from cloud.config import CloudConfig, load
from cloud.errors import ConfigError

SAMPLE = Path(cloud.__file__).parent / "cloud.toml"


def _keys(section: Any, name: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in type(section).model_fields:
        value = getattr(section, key)
        found |= _keys(value, f"{key}.") if isinstance(value, BaseModel) else {f"{name}{key}": value}
    return found


def test_sample_lists_every_setting_with_its_default() -> None:
    section, listed = "", dict[str, str]()
    for line in SAMPLE.read_text().splitlines():
        if head := re.match(r"\[(\w+)\]", line):
            section = head[1]
        elif key := re.match(r"#? ?(\w+) = (.*)", line):
            listed[f"{section}.{key[1]}"] = line
    defaults = _keys(CloudConfig())
    assert sorted(listed) == sorted(defaults)
    for name, line in listed.items():
        assert line.startswith("#") == (defaults[name] is None), name


def test_sample_as_it_is_gives_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "cloud.toml").write_text(SAMPLE.read_text())
    (tmp_path / "empty.toml").write_text("")
    assert load(tmp_path / "cloud.toml") == load(tmp_path / "empty.toml")


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[store]\ndata_dir = "d"\n[registry]\nkeys_dir = "/k"\n')
    config = load(tmp_path / "c.toml")
    assert config.data_dir == tmp_path / "d"
    assert config.keys_dir == Path("/k")
    assert config.database_url == f"sqlite:///{tmp_path / 'd' / 'cloud.sqlite'}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[server]\nprot = 1\n", "server.prot: Extra inputs"),
        ("[server]\nport = 70000\n", "server.port: Input should be less"),
        ('[broker]\nkind = "other"\n', "broker.kind"),
        ("[serve]\n", "serve: Extra"),
        ("not toml", "not TOML"),
        ("\x00", "not TOML"),
    ],
)
def test_wrong_setting_is_named(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(reason)):
        load(tmp_path / "c.toml")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("box", False)],
)
def test_loopback_is_known(host: str, expected: bool) -> None:
    config = CloudConfig()
    assert config.model_copy(update={"server": config.server.model_copy(update={"host": host})}).is_loopback is expected
