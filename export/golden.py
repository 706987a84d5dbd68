"""Golden examples: inputs with the outputs that each shipped file gave for them when the bundle was made.

Rules:
- Outputs come from really running each file; an engine that later differs by more than the tolerance is refused.
- Inputs are preprocessed values; `edge.preprocess.to_model` turns them into what each file takes.
- Examples cover the labels: the first of each label, then on in turn.
"""

import io
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
