"""Segments: where they begin and end, to the frame, whatever the size of the blocks that the sound comes in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.errors import ConfigError
from edge.sources.segments import Segment, open_segmenter

RATE_HZ = 1000
RULES = {"frame_ms": 10, "pre_roll_ms": 50, "hang_over_ms": 100, "min_ms": 30, "max_ms": 1000}


def sound(*parts: tuple[bool, int]) -> NDArray[np.float32]:
    """Return loud and quiet parts, each of so many milliseconds."""
    return np.concatenate([np.full(ms, 0.5 if loud else 0.0001, np.float32) for loud, ms in parts])


def cut(samples: NDArray[np.float32], block: int = 10_000, **rules: float) -> list[Segment]:
    segmenter = open_segmenter({**RULES, **rules}, RATE_HZ)
    found = [segment for at in range(0, len(samples), block) for segment in segmenter.add(samples[at : at + block])]
    last = segmenter.flush()
    return [*found, last] if last is not None else found


def spans(segments: list[Segment]) -> list[tuple[int, int]]:
    return [(segment.start, segment.start + len(segment.samples)) for segment in segments]


def test_segment_has_its_pre_roll_and_its_hang_over() -> None:
    assert spans(cut(sound((False, 200), (True, 100), (False, 300)))) == [(150, 400)]


def test_segment_holds_the_sound_as_it_was() -> None:
    samples = sound((False, 200), (True, 100), (False, 300))
    (segment,) = cut(samples)
    assert np.array_equal(segment.samples, samples[150:400])


def test_pre_roll_at_the_beginning_is_what_there_is() -> None:
    assert spans(cut(sound((False, 20), (True, 100), (False, 300)))) == [(0, 220)]


def test_click_is_no_segment() -> None:
    assert cut(sound((False, 200), (True, 20), (False, 300))) == []


def test_short_pause_does_not_end_a_segment_and_a_long_one_does() -> None:
    together = sound((False, 100), (True, 100), (False, 90), (True, 100), (False, 300))
    apart = sound((False, 100), (True, 100), (False, 200), (True, 100), (False, 300))
    assert spans(cut(together)) == [(50, 490)]
    assert spans(cut(apart)) == [(50, 300), (350, 600)]


def test_hang_over_is_the_pre_roll_of_what_follows_at_once() -> None:
    assert spans(cut(sound((False, 100), (True, 100), (False, 110), (True, 100), (False, 300)))) == [
        (50, 300),
        (260, 510),
    ]


def test_long_sound_is_cut_at_the_maximum_and_nothing_of_it_is_lost() -> None:
    assert spans(cut(sound((True, 2500), (False, 300)))) == [(0, 1000), (1000, 2000), (2000, 2600)]


def test_sound_that_ends_within_a_segment_gives_it_when_flushed() -> None:
    assert spans(cut(sound((False, 100), (True, 100)))) == [(50, 200)]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 400)), min_size=1, max_size=12), st.integers(1, 150))
def test_size_of_the_blocks_changes_nothing(parts: list[tuple[bool, int]], block: int) -> None:
    samples = sound(*parts)
    whole, pieces = cut(samples), cut(samples, block)
    assert spans(whole) == spans(pieces)
    for segment in whole:
        assert len(segment.samples) <= 1000
        assert np.array_equal(segment.samples, samples[segment.start : segment.start + len(segment.samples)])


def test_unknown_way_of_cutting_and_wrong_rule_are_named() -> None:
    with pytest.raises(ConfigError, match=r"segmenter: expected one of .*energy.*, got 'magic'"):
        open_segmenter({"kind": "magic"}, RATE_HZ)
    with pytest.raises(ConfigError, match="segmenter energy: max_ms"):
        open_segmenter({"max_ms": 1}, RATE_HZ)
