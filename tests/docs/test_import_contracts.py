"""The import rules name modules that exist: a rule about a module that was renamed guards nothing."""

import configparser
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN = ("edge", "cloud", "export", "models", "benchmarks", "firmware_configs")
KEYS = ("source_modules", "forbidden_modules", "layers", "modules")
DRIVERS = {"edge.sources", "edge.runtimes", "edge.actuators"}
"""The seams, each of which must stand in the layers."""


def named(text: str) -> set[str]:
    """Return our own modules that a file of contracts names."""
    parser = configparser.ConfigParser()
    parser.read_string(text)
    words = {
        word
        for section in parser.sections()
        for key in KEYS
        for word in re.split(r"[\s|:]+", parser.get(section, key, fallback=""))
        if word
    }
    return {word for word in words if word.split(".")[0] in OWN}


@pytest.mark.parametrize("module", sorted(named((ROOT / ".importlinter").read_text())))
def test_module_of_an_import_rule_exists(module: str) -> None:
    assert find_spec(module) is not None


def test_seams_stand_in_the_layers() -> None:
    assert named((ROOT / ".importlinter").read_text()) >= DRIVERS


def test_check_of_import_rules_sees_every_name() -> None:
    lines = [
        "[importlinter:contract:a]",
        "layers =",
        "    edge.a | edge.b",
        "    edge.c : cloud.d",
        "forbidden_modules = numpy",
    ]
    assert named("\n".join(lines)) == {"edge.a", "edge.b", "edge.c", "cloud.d"}
