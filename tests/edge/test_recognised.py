"""Text of a recogniser goes through numbers and comes back, and what is no speech is never called understood."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import recognised


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), max_size=40), st.floats(0, 1))
def test_any_text_that_fits_comes_back(text: str, chance: float) -> None:
    numbers = recognised.answer(text, chance, 256)
    assert numbers.dtype == np.float32 and numbers.shape == (258,)
    assert recognised.text_of(numbers[2:]) == text.replace("…", "...")


def test_long_text_is_cut_at_a_word_says_so_and_is_not_understood() -> None:
    numbers = recognised.answer("alpha beta gamma delta", 0.9, 18)
    text = recognised.text_of(numbers[2:])
    assert text == "alpha beta…" and recognised.cut(text)
    assert numbers[1] == -recognised.MOST_SURE


def test_ellipsis_of_the_recogniser_is_no_cut() -> None:
    text = recognised.text_of(recognised.answer("and this year…", 0.9, 64)[2:])
    assert text == "and this year..." and not recognised.cut(text)


def test_long_text_of_many_bytes_is_never_cut_within_a_letter() -> None:
    text = recognised.text_of(recognised.answer("ü" * 40, 0.9, 20)[2:])
    assert text == "ü" * 8 + "…"


@pytest.mark.parametrize("text", ["", "  ", "no no no no", "No. No. No. No.", "thank you for watching " * 9])
def test_nothing_and_the_same_again_and_again_are_not_understood(text: str) -> None:
    assert recognised.answer(text, 0.99, 512)[1] == -recognised.MOST_SURE


@pytest.mark.parametrize("text", ["no no no", "yes", "he was not an ill disposed young man", "one one two two"])
def test_speech_is_no_repetition(text: str) -> None:
    assert not recognised.repeats(text)
    assert recognised.answer(text, 0.9, 512)[1] > 0


@pytest.mark.parametrize("chance", [float("nan"), float("inf"), -1.0, 2.0, 0.0, 1.0])
def test_any_chance_gives_finite_log_odds(chance: float) -> None:
    assert abs(recognised.answer("yes", chance, 8)[1]) <= recognised.MOST_SURE


@pytest.mark.parametrize("text", [".", ". . .", "…", "?!", "- -"])
def test_signs_without_a_word_are_not_understood(text: str) -> None:
    assert recognised.wordless(text)
    assert recognised.answer(text, 0.99, 64)[1] == -recognised.MOST_SURE


@pytest.mark.parametrize(
    ("text", "other", "same"),
    [
        ("He was not.", "he was not", True),
        ("cold-hearted", "cold hearted", True),
        ("don't", "dont", False),
        ("he was", "he was not", False),
        ("", ".", True),
        ("über", "ÜBER!", True),
    ],
)
def test_texts_are_alike_if_their_words_are(text: str, other: str, same: bool) -> None:
    assert recognised.alike(text, other) is same
