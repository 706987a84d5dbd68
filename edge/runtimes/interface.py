"""What every runtime gives: a session that turns one tensor into logits, and into what else the network gives."""

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edge.wire.manifest import ModelFile


class Answering(Protocol):
    """Something that answers as a network does."""

    description: str
    """Runtime and version for the records, for example `onnxruntime 1.32.0`."""

    def infer(self, tensor: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return what the network answers to one input of the shape and dtype that the model file declares.

        Returns:
            float32 of one axis: the logits (labels), then the features (d) and the heat map (rows × columns, row by
            row) if the model file declares them.

        Raises:
            ModelError: wrong shape or dtype, the engine failed, the deadline passed, or the child died.
        """
        ...


class Session(Answering, Protocol):
    """A loaded network. Used by one thread at a time."""

    def memory_bytes(self) -> int:
        """Return the memory of a child process that the session runs in, 0 if it runs in this process."""
        ...

    def close(self) -> None:
        """Give everything back. Safe to call twice."""
        ...


@runtime_checkable
class Timed(Protocol):
    """A session whose inferences have a deadline, because it runs where it can be ended."""

    deadline_s: float
    """The longest that the next inference may take; may be changed between two."""


class OpenSession(Protocol):
    """A runtime is a callable that opens a session on the bytes of a model file."""

    def __call__(self, model: bytes, spec: ModelFile, *, threads: int = 1) -> Session:
        """Open a session.

        Raises:
            ModelError: the engine does not take this file.
            ConfigError: the library is not installed; the hint names the extra.
        """
        ...
