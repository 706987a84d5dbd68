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
