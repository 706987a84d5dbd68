"""Golden examples: inputs with the outputs that each shipped file gave for them when the bundle was made.

Rules:
- Outputs come from really running each file; an engine that later differs by more than the tolerance is refused.
- Inputs are preprocessed values; `edge.preprocess.to_model` turns them into what each file takes.
- Examples cover the labels: the first of each label, then on in turn.
"""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.preprocess import to_model
from edge.wire.manifest import ModelFile
from export.recipe import Labelled


def choose(examples: Labelled, count: int) -> NDArray[Any]:
    """Return `count` examples (count, …), as even over the labels as they allow."""
    queues = [[int(i) for i in np.flatnonzero(examples.labels == label)] for label in np.unique(examples.labels)]
    chosen: list[int] = []
    while len(chosen) < count and any(queues):
        chosen.extend(queue.pop(0) for queue in queues if queue)
    return np.asarray(examples.values[chosen[:count]])


def outputs(model: bytes, spec: ModelFile, inputs: NDArray[Any]) -> NDArray[np.float32]:
    """Return the logits (n, labels) that a shipped file gives for preprocessed values (n, …).

    Raises:
        ModelError: the engine does not take the file or the input.
    """
    return split(answers(model, spec, inputs), spec).logits


@dataclass(frozen=True)
class Answers:
    """What a network answered to n inputs; None for what it does not give."""

    logits: NDArray[np.float32]
    """(n, labels)."""
    features: NDArray[np.float32] | None
    """(n, d)."""
    heatmap: NDArray[np.float32] | None
    """(n, rows, columns)."""


def split(flat: NDArray[np.float32], spec: ModelFile) -> Answers:
    """Return answers (n, numbers) by what they are."""
    parts: list[NDArray[np.float32] | None] = []
    start = 0
    for output in (spec.output, spec.features, spec.heatmap):  # a text stays behind
        if output is None:
            parts.append(None)
            continue
        shape = output.answer_shape
        end = start + math.prod(shape)
        parts.append(flat[:, start:end].reshape(len(flat), *(shape[1:] if parts else [-1])))
        start = end
    assert parts[0] is not None
    return Answers(parts[0], parts[1], parts[2])


def answers(model: bytes, spec: ModelFile, inputs: NDArray[Any]) -> NDArray[np.float32]:
    """Return all that a shipped file answers, (n, numbers): logits, features, heat map, as `Session.infer` has it.

    Raises:
        ModelError: the engine does not take the file or the input.
    """
    from edge.runtimes import open_session

    session = open_session(spec.runtime, model, spec, threads=1)
    try:
        return np.stack([session.infer(to_model(value[None], spec.input)) for value in inputs])
    finally:
        session.close()


def as_npy(values: NDArray[Any]) -> bytes:
    """Return an array as the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values), allow_pickle=False)
    return buffer.getvalue()
