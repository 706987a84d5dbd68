"""How far an engine may be from the recorded outputs of a foreign model and still count as the same model: pure.

Rules:
- In the numbers that the file gives: logits, or chances (see `edge.runtimes.tensors.golden_numbers`).
- Of 8-bit outputs two and a half steps, as for models of our own; of float outputs a thousandth of the range seen:
  engines add up in other orders.
"""

import numpy as np
from numpy.typing import NDArray

from export.foreign.model import Foreign

_STEPS = 2.5
_FLOAT_SHARE = 1e-3
_FLOAT_LEAST = 1e-3
_INNER_INT8_SHARE = 0.05
"""Of 8-bit networks with float outputs, whose last scale is not known: about 2.5 steps of 8 bits and some more."""


def golden_tolerance(foreign: Foreign, answers: NDArray[np.float32]) -> float:
    """Return the tolerance for logits (n, labels) as devices hand them out."""
    if foreign.output.scale is not None:
        return _STEPS * foreign.output.scale
    share = _INNER_INT8_SHARE if foreign.precision == "int8" else _FLOAT_SHARE
    span = float(np.ptp(answers)) if foreign.output.values == "logits" else 1.0
    return max(_FLOAT_LEAST, share * span)
