"""What the network is trained on: digits, what is no digit, and digits in other accents."""

import numpy as np
import pytest

from models.spoken_digits.accents import SPELLINGS
from models.spoken_digits.data import (
    FIRST_TRAINED,
    INPUT,
    LABELS,
    MIXED_WORDS,
    OTHER_WORDS,
    PALINDROMES,
    SILENCE_INDEX,
    TRAINED_WORDS,
    UNHEARD_WORDS,
    UNKNOWN_INDEX,
    Recording,
    load_mixed,
    silences,
    spoiled,
    spoken_part,
    synthesise_accents,
    synthesise_others,
)
from models.spoken_digits.speak import WORDS
from tests.data import real_data

RATE_HZ = INPUT.sample_rate_hz


def digits_of(*speakers: str) -> list[Recording]:
    """Return ten sounds per speaker, each another tone."""
    times = np.arange(RATE_HZ // 2) / RATE_HZ
    return [
        Recording(f"{digit}_{who}", digit, who, 20, np.sin(2 * np.pi * (200 + 40 * digit) * times).astype(np.float32))
        for who in speakers
        for digit in range(10)
    ]


def test_labels_begin_with_the_digits() -> None:
    assert LABELS[:10] == list("0123456789")
    assert (LABELS[UNKNOWN_INDEX], LABELS[SILENCE_INDEX]) == ("unknown", "silence")


def test_no_word_of_the_unknown_is_a_digit_or_one_that_measures_it() -> None:
    assert not set(OTHER_WORDS) & {*WORDS, *UNHEARD_WORDS}
    assert not set(TRAINED_WORDS) & set(UNHEARD_WORDS)


def test_spoiled_digits_stay_with_their_speaker_and_are_no_digits() -> None:
    recordings = digits_of("ada", "bob")
    made = spoiled(recordings, 30, np.random.default_rng(1))
    assert {one.label for one in made} == {UNKNOWN_INDEX}
    assert {one.speaker for one in made} == {"ada", "bob"}
    whole = [one.samples for one in recordings]
    assert not any(len(s) == len(one.samples) and np.array_equal(s, one.samples) for one in made for s in whole)


def test_digit_that_sounds_the_same_backwards_is_never_turned() -> None:
    recordings = [one for one in digits_of("ada") if one.label in (1, *PALINDROMES)]
    made = spoiled(recordings, 30, np.random.default_rng(1))
    turned = made[::2]
    assert {one.name for one in turned} == {"1_ada"}


def test_silence_is_noise_of_many_lengths() -> None:
    noise = {"rain": [np.random.default_rng(2).normal(0, 0.1, 3 * RATE_HZ).astype(np.float32)]}
    made = silences(noise, 20, np.random.default_rng(3))
    assert {one.label for one in made} == {SILENCE_INDEX}
    lengths = [len(one.samples) / RATE_HZ for one in made]
    assert min(lengths) >= 0.19 and max(lengths) <= 1.21 and len(set(lengths)) > 10


def test_quiet_around_a_word_is_cut_off() -> None:
    word = digits_of("ada")[0].samples
    quiet = np.zeros(RATE_HZ // 4, np.float32)
    found = spoken_part(np.concatenate([quiet, word, quiet]))
    assert abs(len(found) - len(word)) < RATE_HZ // 10


def test_synthesised_other_words_are_unknown() -> None:
    pytest.importorskip("espeakng_loader")
    made = synthesise_others(6, seed=5)
    assert {one.label for one in made} == {UNKNOWN_INDEX}
    assert all(one.trainable and one.number >= FIRST_TRAINED and len(one.samples) > 0.1 * RATE_HZ for one in made)


def test_accented_digits_keep_their_labels() -> None:
    pytest.importorskip("espeakng_loader")
    made = synthesise_accents(20, seed=5)
    assert [one.label for one in made] == [*range(10)] * 2
    assert all(len(one.samples) > 0.05 * RATE_HZ for one in made)


def test_every_language_spells_ten_different_digits() -> None:
    assert all(len(set(words)) == len(WORDS) for words in SPELLINGS.values())


@pytest.mark.real_data
def test_mixed_words_that_are_digits_are_labelled_by_their_names() -> None:
    mixed = load_mixed(real_data("speech-commands"))
    assert {one.name.split("/")[0] for one in mixed} == {MIXED_WORDS}
    for one in mixed:
        word = one.name.split("/")[1].split("_")[0]
        assert one.label == (WORDS.index(word) if word in WORDS else UNKNOWN_INDEX)
    assert len({one.speaker for one in mixed if one.label < UNKNOWN_INDEX}) > 40
