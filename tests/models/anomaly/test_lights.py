"""Less light: nothing good is decided on, and the gate says so before it is dark."""

import numpy as np

from edge.bundle import load
from models.anomaly.lights import BUNDLE, drawn, shares, turned_away
from models.magnetic_tile.data import Photo


def test_drawn_tiles_in_failing_light_go_to_a_person_and_then_to_nobody() -> None:
    bundle = load(BUNDLE)
    inputs, _ = bundle.golden(bundle.manifest.prefer)
    pictures = [np.repeat(values, 3, axis=2) for values in inputs[:2]]
    for exposure in (1.0, 0.25):
        found = shares(bundle, pictures, exposure)
        assert sum(found.values()) == 1.0
        assert not {"pass", "divert"} & set(found)
    assert shares(bundle, pictures, 0.12) == {"bad_input": 1.0}


def test_gate_lies_just_below_the_dimmest_known_light_and_turns_no_known_tile_away() -> None:
    manifest = load(BUNDLE).manifest
    least = manifest.gate["brightness"].min
    assert least is not None and 0.15 < least < 0.2
    assert manifest.metrics["gate_by_other_ranges"] == {"pictures": 870, "turned_away": 0}
    spread = {"brightness": np.linspace(0.2, 0.8, 50)}
    assert turned_away(spread, np.ones(50, np.bool_), np.arange(50) % 5) == 0
    assert turned_away(spread, np.ones(50, np.bool_), np.arange(50) // 10) == 7, "the dimmest range set nothing"


def test_one_good_picture_of_each_part_is_drawn() -> None:
    empty = np.zeros((4, 4), np.uint8)
    photos = [
        Photo(f"{part}-{light}", part, light, "crack" if part == 3 else "free", part, 0, empty, empty, (0, 0, 4, 4))
        for part in range(5)
        for light in range(1, 4)
    ]
    chosen = drawn(photos, 3, seed=1)
    assert len({photo.part for photo in chosen}) == 3
    assert not any(photo.defective for photo in chosen)
    assert chosen == drawn(photos, 3, seed=1)
