"""Fakes for tests of what lies above the seams: each implements the real Protocol and passes the real suite."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edge.errors import ActuatorError, ModelError, SourceError
from edge.runtimes.tensors import check_input
from edge.values import Window
from edge.wire.manifest import ModelFile
from edge.wire.rows import DecisionRow

Answer = NDArray[np.float32] | ModelError


class FakeSession:
    """Answers from a script: logits, or an error to raise; the last entry repeats. May take its time."""

    description = "fake 1.0"

    def __init__(
        self, spec: ModelFile, answers: Sequence[Answer] | Callable[[NDArray[np.generic]], Answer], latency_s: float = 0
    ) -> None:
        self._spec, self._latency_s = spec, latency_s
        self._answers = answers
        self.calls = 0
        self.closed = False

    def infer(self, tensor: NDArray[np.generic]) -> NDArray[np.float32]:
        if self.closed:
            raise ModelError("the session is closed")
        check_input(tensor, tuple(self._spec.input.shape), np.dtype(self._spec.input.dtype))
        if callable(self._answers):
            answer = self._answers(tensor)
        else:
            answer = self._answers[min(self.calls, len(self._answers) - 1)]
        self.calls += 1
        time.sleep(self._latency_s)
        if isinstance(answer, ModelError):
            raise answer
        return np.array(answer, np.float32)

    def memory_bytes(self) -> int:
        return 0

    def close(self) -> None:
        self.closed = True


class ScriptedSource:
    """Gives windows from a list; a SourceError in the list is raised in its turn, None is a wait in vain."""

    kind = "scripted"

    def __init__(self, script: Sequence[Window | SourceError | None]) -> None:
        self._script = list(script)
        self.closed = False

    def read(self, wait_s: float) -> Window | None:
        if self.closed:
            raise SourceError("the source is closed", retry=False)
        if not self._script or (wait_s == 0 and self._script[0] is None):
            return None
        step = self._script.pop(0)
        if isinstance(step, SourceError):
            raise step
        return step

    @property
    def exhausted(self) -> bool:
        return self.closed or not self._script

    def close(self) -> None:
        self.closed = True


class RecordingActuator:
    """Remembers what it was told; fails as long as `failing` says why."""

    kind = "recording"
    deadline_ms = 1000.0
    confirms_later = False

    def __init__(self) -> None:
        self.acted: list[DecisionRow] = []
        self.safe_for: list[str] = []
        self.stopped_for: list[str] = []
        self.released = 0
        self.failing: str | None = None
        self.closed = False

    def look(self) -> str | None:
        return self.failing

    def act(self, decision: DecisionRow) -> str | None:
        self._refuse()
        self.acted.append(decision)
        return None

    def safe(self, why: str) -> None:
        self._refuse()
        self.safe_for.append(why)

    def stop(self, why: str) -> None:
        self._refuse()
        self.stopped_for.append(why)

    def release(self) -> None:
        self._refuse()
        self.released += 1

    def close(self) -> None:
        self.closed = True

    def _refuse(self) -> None:
        if self.closed:
            raise ActuatorError("the actuator is closed", retry=False)
        if self.failing is not None:
            raise ActuatorError(self.failing)
