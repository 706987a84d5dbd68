"""Runs a model file directly, for measuring it while a bundle is made.

Rules:
- One thread, batch 1, exact products of bytes, the engine's defaults otherwise: what a device does.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class OnnxRunner:
    """An onnxruntime session on a file with one input, for its logits (or the named output)."""

    def __init__(self, model: bytes, output: str | None = None) -> None:
        import onnxruntime

        from edge.runtimes.onnx import exact_session

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = exact_session(model, options)
        self._input = self._session.get_inputs()[0].name
        names = [output.name for output in self._session.get_outputs()]
        self._logits = output or ("logits" if "logits" in names else names[0])

    def logits(self, tensors: NDArray[Any]) -> NDArray[np.float32]:
        """Return (n, labels) float32 logits.

        Args:
            tensors: (n, 1, …): n inputs, each with its batch axis.
        """
        answers = [self._session.run([self._logits], {self._input: tensor})[0] for tensor in tensors]
        return np.concatenate(answers).astype(np.float32)
