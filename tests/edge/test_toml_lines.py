"""Every setting of a TOML file is found on its line, however it is written."""

import pytest

from edge.toml_lines import line_of

DOCUMENT = """# a comment
[device]
name = "box-1"

[station.main]
model = "glass"
source = { kind = "folder", path = "inbox" }
actuator.kind = "log"

[station."second one"]
model = "screw"
"""


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("device", "name"), 3),
        (("station", "main", "model"), 6),
        (("station", "main", "source", "path"), 7),
        (("station", "main", "actuator", "kind"), 8),
        (("station", "second one", "model"), 11),
        (("station", "main", "deadline_ms"), 5),
        (("device", "profile"), 2),
        (("cloud", "url"), None),
    ],
)
def test_place_is_found_or_the_nearest_around_it(place: tuple[str, ...], line: int | None) -> None:
    assert line_of(DOCUMENT, place) == line


STAGES = """error = 0.05
[[stages]]
kind = "canary"
[[stages.gates]]
metric = "wrong"
[[stages.gates]]
metric = "errors"
margin = 0.1
[[stages]]
kind = "ramp"
[stages.window]
zone = "UTC"
[[stages.gates]]
margin = 0.2
"""


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("stages", 0, "kind"), 3),
        (("stages", 0, "gates", 0, "metric"), 5),
        (("stages", 0, "gates", 1, "margin"), 8),
        (("stages", 0, "gates", 1, "tolerance"), 6),
        (("stages", 1, "window", "zone"), 12),
        (("stages", 1, "gates", 0, "margin"), 14),
        (("stages", 1), 9),
    ],
)
def test_place_in_an_array_of_tables_is_found_by_its_numbers(place: tuple[str | int, ...], line: int) -> None:
    assert line_of(STAGES, place) == line
