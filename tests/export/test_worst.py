"""The worst examples, and evidence drawn over pictures."""

import base64
from pathlib import Path

import cv2
import numpy as np

from export.dataset import load
from export.worst import overlaid, png, span, worst
from tests.bundles import bundle
from tests.export.folders import plates
from tests.export.judgements import inspected


def test_evidence_is_red_where_it_is_and_nowhere_else() -> None:
    picture = np.full((32, 32, 3), 100, np.uint8)
    heat = np.zeros((8, 8), np.float32)
    heat[0, 0] = 5.0
    drawn = overlaid(picture, heat, span([heat]))
    assert drawn[1, 1, 2] > 150
    np.testing.assert_array_equal(drawn[20:, 20:], picture[20:, 20:])


def test_clean_picture_stays_pale_beside_a_defective_one() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, (8, 8)).astype(np.float32)
    strong = noise.copy()
    strong[4, 4] = 9.0
    picture = np.full((32, 32, 3), 100, np.uint8)
    drawn = overlaid(picture, noise, span([noise, strong]))
    assert np.abs(drawn.astype(int) - picture).max() < 10


def test_picture_survives_being_written_as_text() -> None:
    picture = np.random.default_rng(1).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    raw = np.frombuffer(base64.b64decode(png(picture)), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(raw, cv2.IMREAD_COLOR), picture)


def test_worst_are_named_by_what_is_wrong_with_them(tmp_path: Path) -> None:
    items = load(plates(tmp_path, count=4), "inspect").items
    judged = inspected([0.1, 0.9, 0.2, 0.3, 0.95, 0.05, 0.8, 0.7], [False] * 4 + [True] * 4)
    found = worst(bundle(), judged, items)
    titles = [one["title"] for one in found]
    assert titles == ["defective, but looks good", "good, but looks defective", *["plainly defective"] * 3]
    assert "0.050" in found[0]["words"]
