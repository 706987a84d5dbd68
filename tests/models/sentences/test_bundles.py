"""The committed recognisers: small, honest about what they promise, and as good as the card says."""

import os
import random
from pathlib import Path

import pytest
from scipy.stats import binomtest

from edge.bundle import load
from edge.engines import EngineSettings, open_engine
from edge.sources.files import read_window
from edge.steps import judge
from edge.values import StationSettings
from edge.wire.manifest import KeywordPolicy
from edge.work import Work
from models.sentences.data import is_right, load_sentences
from models.sentences.train import HERE, KINDS, VERSION, Kind
from tests.data import real_data


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_bundle_is_small_and_never_accepts_what_is_unclear(kind: Kind) -> None:
    bundle = load(HERE / f"{kind.name}-{VERSION}.lsb")
    policy = bundle.manifest.policy
    assert bundle.ref.size_bytes < 150_000
    assert isinstance(policy, KeywordPolicy) and policy.label_accept_min["unclear"] > 1
    assert policy.guarantee is not None and policy.guarantee.unit == "speaker"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_note_names_the_weights_that_are_installed(kind: Kind) -> None:
    bundle = load(HERE / f"{kind.name}-{VERSION}.lsb")
    assert bundle.model(kind.runtime)[1] == kind.note().to_bytes()


SEED = 3


@pytest.mark.real_data
@pytest.mark.parametrize(
    "share",
    [
        pytest.param(1, marks=pytest.mark.skipif("LINESIDE_LONG" not in os.environ, reason="all; LINESIDE_LONG=1")),
        3,
    ],
)
def test_sentences_are_understood_as_the_card_says(share: int) -> None:
    folder: Path = real_data("sentences")
    engine = open_engine(load(HERE / f"sentences-{VERSION}.lsb"), EngineSettings(isolation="inline", threads=2))
    right = accepted = wrong = 0
    everything = load_sentences(folder)
    sentences = random.Random(SEED).sample(everything, len(everything) // share)
    for one in sentences:
        work = Work(read_window(folder / one.name, source="file"), StationSettings("s", deadline_ms=1e9), engine)
        verdict = judge(work).verdict
        assert work.text is not None
        correct = is_right(work.text, one.text)
        right += correct
        accepted += verdict == "accept"
        wrong += verdict == "accept" and not correct
    engine.session.close()
    # Of a few drawn ones chance alone may take more: so few contradict no 0.84.
    assert binomtest(right, len(sentences), 0.84, alternative="less").pvalue > 0.05
    assert right >= 0.84 * len(sentences) or share > 1
    assert accepted >= 0.5 * len(sentences)
    # 3 wrong of 21 with AVX-512, 4 with AVX2 alone, whose int8 rounds otherwise: so few contradict no promise of 15 %.
    assert binomtest(wrong, accepted, 0.15, alternative="greater").pvalue > 0.05
