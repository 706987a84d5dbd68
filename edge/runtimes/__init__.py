"""Runtimes: engines that turn one tensor into a network's answer, each behind the same `Session`.

Rules:
- A runtime's library is imported when a model asks for it, never before.
- To add one: a file with an `open_session` like those here, and a line in `RUNTIMES`.
- Nothing here imports pydantic: the inference child loads this package and must stay small.
"""

from typing import TYPE_CHECKING

from edge.lazy import find

if TYPE_CHECKING:
    from edge.runtimes.interface import Session
    from edge.wire.manifest import ModelFile

RUNTIMES = {
    "onnx": "edge.runtimes.onnx:open_session",
    "tflite": "edge.runtimes.tflite:open_session",
    "whisper": "edge.runtimes.whisper:open_session",
    "pocketsphinx": "edge.runtimes.pocketsphinx:open_session",
}
EXTRAS = {"tflite": "tflite", "whisper": "whisper", "pocketsphinx": "pocketsphinx"}


def open_session(name: str, model: bytes, spec: "ModelFile", *, threads: int = 1) -> "Session":
    """Open a session of the runtime `name` in this process.

    Args:
        name: a key of `RUNTIMES`.
        model: the bytes of the model file, already checked against their digest.
        spec: what the manifest says about that file.
        threads: threads of the engine for one inference.

    Raises:
        ConfigError: the name is unknown, or its library is not installed.
        ModelError: the engine does not take this file, or the file is not what `spec` says.
    """
    opener = find(RUNTIMES, name, what="runtime", extras=EXTRAS)
    session: Session = opener(model, spec, threads=threads)
    return session
