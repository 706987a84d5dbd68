"""Runs Whisper with CTranslate2 (faster-whisper) on the CPU, in this process: sound in, text out.

Radford et al. 2022, Robust Speech Recognition via Large-Scale Weak Supervision (arXiv:2212.04356).

Rules:
- The weights come with a package and are handed over as the bytes whose digests were checked; nothing is fetched.
- The network sees a window that fits the sound, not always 30 s: half the window is a third of the time. Below
  `least_s` it loops, so that is the shortest.
- Greedy, without time stamps, and no three words twice: the same sound gives the same text.
- A text that fills all its tokens was cut, or ran in a loop: nobody is sure of it.
"""

import math
from typing import TYPE_CHECKING, Any

import faster_whisper
import numpy as np
from faster_whisper.audio import pad_or_trim
from numpy.typing import NDArray

from edge import recognised
from edge.errors import ModelError
from edge.runtimes.tensors import check_input
from edge.runtimes.weights import checked_files, number, read_note, require, text_bytes

if TYPE_CHECKING:
    from edge.wire.manifest import ModelFile

FOLDER, NEEDED = "model", ("model.bin", "config.json", "tokenizer.json")
"""Of the package; without its own tokenizer the library would fetch one."""
FRAMES_PER_S = 100
"""Of the network's own features."""
MOST_FRAMES = 3000
LEAST_S = 15.0
"""Shortest window, in seconds, where the note names none."""
TAIL_S = 1.0
"""Silence that the network is given behind the sound, so that it hears the end."""
MAX_TOKENS = 160
"""Fast speech of fifteen seconds takes some eighty."""
NO_REPEAT = 3


class WhisperSession:
    """A recogniser in CTranslate2."""

    def __init__(self, model: bytes, spec: "ModelFile", *, threads: int = 1) -> None:
        note = read_note(model)
        length = text_bytes(spec)
        require(note, tuple(f"{FOLDER}/{name}" for name in NEEDED))
        self._model: faster_whisper.WhisperModel | None = _load(checked_files(note), threads)
        self._prompt = _prompt(self._model)
        self._least_s = number(note, "least_s", LEAST_S, most=MOST_FRAMES / FRAMES_PER_S)
        self._length = length
        self._shape, self._dtype = tuple(spec.input.shape), np.dtype(spec.input.dtype)
        self.description = f"whisper, faster-whisper {faster_whisper.__version__}"

    def infer(self, tensor: NDArray[np.generic]) -> NDArray[np.float32]:
        if self._model is None:
            raise ModelError("the session is closed")
        check_input(tensor, self._shape, self._dtype)
        sound = _without_padding(np.asarray(tensor, np.float32).ravel())
        try:
            text, chance = _understood(self._model, self._prompt, sound, self._least_s)
        except Exception as error:  # the binding's exceptions have no base of their own
            raise ModelError(f"whisper failed: {error}") from error
        return recognised.answer(text, chance, self._length)

    def memory_bytes(self) -> int:
        return 0

    def close(self) -> None:
        self._model = None


def open_session(model: bytes, spec: "ModelFile", *, threads: int = 1) -> WhisperSession:
    """Open a session on the bytes of a recogniser's note.

    Raises:
        ConfigError: the package with the weights is not installed.
        ModelError: the note, the weights or the model file's outputs are not what they should be.
    """
    return WhisperSession(model, spec, threads=threads)


def _load(files: dict[str, bytes], threads: int) -> "faster_whisper.WhisperModel":
    named: dict[str, Any] = {name.rpartition("/")[2]: content for name, content in files.items()}
    try:
        return faster_whisper.WhisperModel(
            "bundle", device="cpu", compute_type="int8", cpu_threads=threads, local_files_only=True, files=named
        )
    except Exception as error:  # as above
        raise ModelError(f"whisper does not take these weights: {error}") from error


def _prompt(model: "faster_whisper.WhisperModel") -> list[int]:
    tokens = ("<|startoftranscript|>", "<|notimestamps|>")
    return [number for token in tokens if (number := model.hf_tokenizer.token_to_id(token)) is not None]


def _understood(
    model: "faster_whisper.WhisperModel", prompt: list[int], sound: NDArray[np.float32], least_s: float
) -> tuple[str, float]:
    """Return the text and the geometric mean of its tokens' probabilities."""
    if not len(sound):
        return "", 0.0
    features = model.feature_extractor(sound)
    wanted = max(round(least_s * FRAMES_PER_S), features.shape[-1] + round(TAIL_S * FRAMES_PER_S))
    encoded = model.encode(pad_or_trim(features, min(wanted, MOST_FRAMES)))
    result = model.model.generate(
        encoded, [prompt], beam_size=1, max_length=MAX_TOKENS, no_repeat_ngram_size=NO_REPEAT, return_scores=True
    )[0]
    tokens = result.sequences_ids[0]
    text = model.hf_tokenizer.decode(tokens)
    if len(prompt) + len(tokens) >= MAX_TOKENS:
        return text, 0.0
    # CTranslate2 divides by the tokens without the end; the end was scored too.
    mean = result.scores[0] * len(tokens) / (len(tokens) + 1)
    return text, math.exp(mean)


def _without_padding(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    heard = np.flatnonzero(sound)
    return sound[: heard[-1] + 1] if len(heard) else sound[:0]
