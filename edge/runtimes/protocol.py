"""What the daemon and its inference child say to each other, and where tensors lie in the memory they share: pure.

Rules:
- One message is one packet of a SOCK_SEQPACKET pair; its first byte says what it is.
- Tensors never travel: the daemon writes the input and the child writes its answer into one shared memory.
- Standard library and numpy only: the child loads this file and must stay small.
"""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge.errors import ConfigError, LinesideError, ModelError

RUN, READY, DONE, FAILED = b"i", b"r", b"k", b"e"
MAX_MESSAGE_BYTES = 8192
"""Packets are a byte, or an error in words."""
MAX_SHARED_BYTES = 256 * 2**20
"""Input and output together: far above any picture, and a manifest cannot make the device reserve more."""

_ALIGNMENT = 64
_WORDS = 2000
_FAMILIES: dict[str, type[LinesideError]] = {"ConfigError": ConfigError, "ModelError": ModelError}


@dataclass(frozen=True)
class Layout:
    """Where the tensors lie: the input at 0, the answer (numbers,) float32 at `answer_at`; sizes in bytes.

    The answer is what the session gives: logits, then features and heat map if the network gives them.
    """

    input_shape: tuple[int, ...]
    input_dtype: str
    numbers: int
    answer_at: int
    size_bytes: int


@dataclass(frozen=True)
class Start:
    """All that the child is started with, as its one argument."""

    path: list[str]
    """The daemon's own `sys.path`: the child finds the same packages whatever way they are installed."""
    runtime: str
    spec: dict[str, Any]
    threads: int
    nice: int
    model_fd: int
    model_bytes: int
    shared_fd: int
    layout: Layout
    control_fd: int
    life_fd: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def start_from(values: dict[str, Any]) -> Start:
    """Return what `Start.to_json` wrote."""
    layout = values["layout"] | {"input_shape": tuple(values["layout"]["input_shape"])}
    return Start(**values | {"layout": Layout(**layout)})


def layout_of(input_shape: list[int], input_dtype: str, output_shapes: list[list[int]]) -> Layout:
    """Return where the tensors of a network lie in shared memory.

    Raises:
        ModelError: a size is not positive, or together they are larger than any real network needs.
    """
    if any(min(shape, default=0) < 1 for shape in (input_shape, *output_shapes)):
        out = ", ".join(str(shape) for shape in output_shapes)
        raise ModelError(f"model file: expected fixed positive sizes, got {input_shape} in, {out} out")
    input_bytes = math.prod(input_shape) * np.dtype(input_dtype).itemsize
    numbers = sum(math.prod(shape) for shape in output_shapes)
    answer_at = -(-input_bytes // _ALIGNMENT) * _ALIGNMENT
    size = answer_at + numbers * 4
    if size > MAX_SHARED_BYTES:
        raise ModelError(f"model file: tensors of {size} bytes, expected at most {MAX_SHARED_BYTES}")
    return Layout(tuple(input_shape), input_dtype, numbers, answer_at, size)


def failure(error: LinesideError) -> bytes:
    """Return the packet that carries an error to the daemon."""
    family = "ConfigError" if isinstance(error, ConfigError) else "ModelError"
    words = {"family": family, "message": str(error)[:_WORDS], "hint": error.hint[:_WORDS]}
    return FAILED + json.dumps(words, ensure_ascii=False).encode()


def error_in(packet: bytes) -> LinesideError:
    """Return the error that a packet carries."""
    words = json.loads(packet[1:])
    return _FAMILIES[words["family"]](words["message"], hint=words["hint"])
