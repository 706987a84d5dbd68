"""Every model of the contract: there and back, unknown fields kept, old releases still read."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.wire.base import WireModel
from edge.wire.messages import MESSAGES, parse_message
from edge.wire.rows import ROWS, parse_row
from tests.contract.samples import SAMPLES, every_model
from tests.contract.write_golden import GOLDEN

NAMES = [type(sample).__name__ for sample in SAMPLES]
GOLDEN_FILES = sorted(GOLDEN.glob("*/*.json"))
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def test_every_model_has_exactly_one_sample() -> None:
    assert sorted(NAMES) == [model.__name__ for model in every_model()]


@pytest.mark.parametrize("sample", SAMPLES, ids=NAMES)
def test_model_sent_and_read_is_the_same(sample: WireModel) -> None:
    assert type(sample).model_validate_json(sample.model_dump_json()) == sample


@pytest.mark.parametrize("sample", SAMPLES, ids=NAMES)
def test_model_cannot_be_changed(sample: WireModel) -> None:
    field = next(iter(type(sample).model_fields))
    with pytest.raises(ValueError, match="frozen"):
        setattr(sample, field, getattr(sample, field))


@settings(max_examples=20)
@given(name=st.text("abcdefgh_", min_size=1, max_size=12).map(lambda text: f"new_{text}"), value=JSON_VALUES)
@pytest.mark.parametrize("sample", SAMPLES, ids=NAMES)
def test_fields_of_a_later_release_are_kept_at_every_level(sample: WireModel, name: str, value: Any) -> None:
    document = _with_unknown(json.loads(sample.model_dump_json()), sample, name, value)
    read = type(sample).model_validate_json(json.dumps(document))
    assert json.loads(read.model_dump_json()) == document


@pytest.mark.parametrize("model", MESSAGES, ids=lambda model: model.__name__)
def test_message_is_recognised_by_its_kind(model: type[WireModel]) -> None:
    sample = next(sample for sample in SAMPLES if type(sample) is model)
    assert parse_message(sample.model_dump_json().encode()) == sample


@pytest.mark.parametrize("model", ROWS, ids=lambda model: model.__name__)
def test_row_is_recognised_by_its_kind(model: type[WireModel]) -> None:
    sample = next(sample for sample in SAMPLES if type(sample) is model)
    assert parse_row(sample.model_dump_json()) == sample


def test_release_0_1_has_golden_files_of_every_model() -> None:
    assert {path.stem for path in GOLDEN_FILES if path.parent.name == "0.1"} >= set(NAMES)


@pytest.mark.parametrize("path", GOLDEN_FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_an_older_release_sent_is_read_without_loss(path: Path) -> None:
    golden = json.loads(path.read_text())
    model = next(model for model in every_model() if model.__name__ == path.stem)
    assert _missing(golden, json.loads(model.model_validate(golden).model_dump_json())) == []


def _with_unknown(document: Any, sample: Any, name: str, value: Any) -> Any:
    """Return the document with one more field in every object that is a model of the contract."""
    if isinstance(sample, WireModel):
        changed = {key: _with_unknown(part, getattr(sample, key), name, value) for key, part in document.items()}
        return {**changed, name: value}
    if isinstance(sample, dict):
        return {key: _with_unknown(part, sample[key], name, value) for key, part in document.items()}
    if isinstance(sample, list):
        return [_with_unknown(part, inner, name, value) for part, inner in zip(document, sample, strict=True)]
    return document


def _missing(golden: Any, read: Any, place: str = "") -> list[str]:
    """Return where the read document lacks or changes what the golden one says; more fields are allowed."""
    if isinstance(golden, dict) and isinstance(read, dict):
        return [
            lack for key, part in golden.items() for lack in _missing(part, read.get(key, "missing"), f"{place}.{key}")
        ]
    if isinstance(golden, list) and isinstance(read, list) and len(golden) == len(read):
        return [
            lack
            for number, (part, other) in enumerate(zip(golden, read, strict=True))
            for lack in _missing(part, other, f"{place}[{number}]")
        ]
    return [] if golden == read else [f"{place}: expected {golden!r}, got {read!r}"]
