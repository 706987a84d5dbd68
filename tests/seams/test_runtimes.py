"""Every runtime, in this process and in a child of its own, keeps the same promises."""

import os
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edge.errors import ConfigError, ModelError
from edge.runtimes import RUNTIMES, open_session
from edge.runtimes.interface import Session
from edge.runtimes.isolated import IsolatedSession
from edge.wire.manifest import ModelFile
from tests.seams.fakes import FakeSession
from tests.seams.networks import BLACK, BRIGHT, NETWORKS, Example, example, largest_products, open_sized

Open = Callable[[bytes, ModelFile], Session]


def _inline(runtime: str) -> Open:
    return lambda model, spec: open_session(runtime, model, spec)


def _isolated(runtime: str) -> Open:
    return lambda model, spec: IsolatedSession(runtime, model, spec, deadline_s=5, start_timeout_s=20)


OPENERS: dict[str, tuple[str, Open]] = {
    f"{name}-{how}": (name, opener(name))
    for name in NETWORKS
    for how, opener in (("inline", _inline), ("process", _isolated))
}


@pytest.fixture(params=sorted(OPENERS))
def real(request: pytest.FixtureRequest) -> tuple[Example, Open]:
    runtime, opener = OPENERS[request.param]
    return example(runtime), opener


@pytest.fixture(params=[*sorted(OPENERS), "fake"])
def opened(request: pytest.FixtureRequest) -> Iterator[tuple[Example, Session]]:
    session: Session
    if request.param == "fake":
        case = example("onnx")
        session = FakeSession(case.spec, list(case.logits))
    else:
        runtime, opener = OPENERS[request.param]
        case = example(runtime)
        session = opener(case.model, case.spec)
    yield case, session
    session.close()


def test_known_inputs_give_known_logits(opened: tuple[Example, Session]) -> None:
    case, session = opened
    got = np.stack([session.infer(tensor) for tensor in case.tensors])
    assert got.dtype == np.float32 and got.shape == case.logits.shape
    assert np.abs(got - case.logits).max() <= case.tolerance


def test_same_input_gives_same_bits_in_both_isolations() -> None:
    for runtime in NETWORKS:
        case = example(runtime)
        answers = []
        for name in (f"{runtime}-inline", f"{runtime}-process"):
            session = OPENERS[name][1](case.model, case.spec)
            answers.append([session.infer(tensor) for tensor in case.tensors])
            session.close()
        assert np.array_equal(answers[0], answers[1])


def test_runtimes_agree_within_two_steps_of_the_output() -> None:
    answers = {}
    for runtime in NETWORKS:
        case = example(runtime)
        session = open_session(runtime, case.model, case.spec)
        answers[runtime] = np.stack([session.infer(tensor) for tensor in case.tensors])
    step = example("tflite").spec.output.scale
    assert step is not None
    assert np.abs(answers["onnx"] - answers["tflite"]).max() <= 2.001 * step


def test_result_stays_as_it_was_when_the_next_inference_runs(opened: tuple[Example, Session]) -> None:
    case, session = opened
    first = session.infer(case.tensors[0])
    kept = first.copy()
    session.infer(case.tensors[1])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("wrong", ["shape", "dtype"])
def test_wrong_tensor_is_refused_and_the_next_one_served(opened: tuple[Example, Session], wrong: str) -> None:
    case, session = opened
    good = case.tensors[0]
    bad = good[:, :-1] if wrong == "shape" else good.astype(np.float32)
    with pytest.raises(ModelError, match=r"expected .* of shape .*, got .* of shape"):
        session.infer(bad)
    assert session.infer(good).shape == (len(case.logits[0]),)


def test_tensor_with_gaps_in_memory_gives_the_same_logits(opened: tuple[Example, Session]) -> None:
    case, session = opened
    tensor = case.tensors[0]
    spread = np.empty((*tensor.shape[:-1], tensor.shape[-1] * 2), tensor.dtype)
    spread[..., ::2] = tensor
    assert np.abs(session.infer(spread[..., ::2]) - case.logits[0]).max() <= case.tolerance


def test_closed_session_refuses_and_closes_again(opened: tuple[Example, Session]) -> None:
    case, session = opened
    session.close()
    session.close()
    assert session.memory_bytes() == 0
    with pytest.raises(ModelError, match="closed"):
        session.infer(case.tensors[0])


def test_description_names_engine_and_version(opened: tuple[Example, Session]) -> None:
    name, version = opened[1].description.split(",")[0].split(" ")
    assert name and version[0].isdigit()


def test_damaged_model_is_refused_in_words(real: tuple[Example, Open]) -> None:
    case, opener = real
    other = example("tflite" if case.runtime == "onnx" else "onnx").model
    noise = np.random.default_rng(5).bytes(2000)
    for damaged in (b"", case.model[: len(case.model) // 2], noise, other):
        with pytest.raises(ModelError):
            opener(damaged, case.spec)


@pytest.mark.parametrize("part", ["input", "output"])
def test_model_other_than_the_manifest_says_is_refused_with_expected_and_got(
    real: tuple[Example, Open], part: str
) -> None:
    case, opener = real
    spec = getattr(case.spec, part)
    changed = spec.model_copy(update={"shape": [1, *[size + 1 for size in spec.shape[1:]]]})
    with pytest.raises(ModelError, match=r"expected .* got"):
        opener(case.model, case.spec.model_copy(update={part: changed}))
    retyped = spec.model_copy(update={"dtype": "float32" if spec.dtype != "float32" else "int8"})
    with pytest.raises(ModelError, match=r"expected .* got"):
        opener(case.model, case.spec.model_copy(update={part: retyped}))


@pytest.mark.parametrize("opener", [_inline("onnx"), _isolated("onnx")])
def test_output_of_another_size_than_declared_is_refused_when_it_comes(opener: Open) -> None:
    session = opener(*open_sized())
    assert session.infer(BLACK).shape == (2,)
    with pytest.raises(ModelError, match=r"expected shape \[1, 2\], got \[1, 16\]"):
        session.infer(BRIGHT)
    assert session.infer(BLACK).shape == (2,)
    session.close()


def test_tflite_with_another_scale_than_the_manifest_is_refused() -> None:
    case = example("tflite")
    assert case.spec.output.scale is not None
    other = case.spec.output.model_copy(update={"scale": case.spec.output.scale * 1.01})
    with pytest.raises(ModelError, match="scale"):
        open_session("tflite", case.model, case.spec.model_copy(update={"output": other}))


@pytest.mark.parametrize("whole", [True, False])
def test_loading_is_silent_about_what_is_in_order(capfd: pytest.CaptureFixture[str], whole: bool) -> None:
    case = example("tflite")
    if whole:
        open_session("tflite", case.model, case.spec).infer(case.tensors[0])
    else:
        with pytest.raises(ModelError):
            open_session("tflite", case.model[:500], case.spec)
    os.write(2, b"stderr is back\n")
    assert capfd.readouterr().err == "stderr is back\n"


@pytest.mark.parametrize("opener", [_inline("abacus"), _isolated("abacus")])
def test_unknown_runtime_is_refused_with_the_known_ones(opener: Open) -> None:
    case = example("onnx")
    with pytest.raises(ConfigError, match=", ".join(sorted(RUNTIMES))):
        opener(case.model, case.spec)


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    case = example("tflite")
    monkeypatch.delitem(sys.modules, "edge.runtimes.tflite", raising=False)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ConfigError, match="ai_edge_litert") as caught:
        open_session("tflite", case.model, case.spec)
    assert "pip install 'lineside[tflite]'" in caught.value.hint


def test_largest_products_of_bytes_are_exact_on_every_processor() -> None:
    model, spec, white, logits = largest_products()
    session = open_session("onnx", model, spec)
    try:
        assert np.abs(session.infer(white) - logits).max() <= spec.golden_tolerance
    finally:
        session.close()
