"""Runs PocketSphinx with the model that its package brings, in this process: sound in, text out.

Small (30 MB) and quick to start, with three to five times the word errors of Whisper: for a box without room for more.

Rules:
- The model's files are checked against the bundle's digests before the decoder, which reads them by path, is opened.
- Sound is handed over as 16-bit samples in one piece, and what was learned of the noise in the sound before is dropped
  first: the same sound gives the same text with the same certainty, whatever came before it.
"""

import math
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import pocketsphinx
from numpy.typing import NDArray

from edge import recognised
from edge.errors import ModelError
from edge.runtimes.tensors import check_input
from edge.runtimes.weights import checked_files, folder_of, read_note, require, text_bytes

if TYPE_CHECKING:
    from edge.wire.manifest import ModelFile

ACOUSTIC, LANGUAGE, WORDS = "model/en-us/en-us", "model/en-us/en-us.lm.bin", "model/en-us/cmudict-en-us.dict"
LEVEL = 32767


class PocketSphinxSession:
    """A recogniser in PocketSphinx."""

    def __init__(self, model: bytes, spec: "ModelFile", *, threads: int = 1) -> None:
        del threads  # it has one
        note = read_note(model)
        length = text_bytes(spec)
        require(note, (f"{ACOUSTIC}/mdef", LANGUAGE, WORDS))
        checked_files(note)
        folder = folder_of(note)
        try:
            self._decoder: pocketsphinx.Decoder | None = pocketsphinx.Decoder(
                hmm=str(folder / ACOUSTIC), lm=str(folder / LANGUAGE), dict=str(folder / WORDS), loglevel="FATAL"
            )
        except Exception as error:  # the binding's exceptions have no base of their own
            raise ModelError(f"pocketsphinx does not take this model: {error}") from error
        self._length = length
        self._shape, self._dtype = tuple(spec.input.shape), np.dtype(spec.input.dtype)
        self.description = f"pocketsphinx {version('pocketsphinx')}"

    def infer(self, tensor: NDArray[np.generic]) -> NDArray[np.float32]:
        if self._decoder is None:
            raise ModelError("the session is closed")
        check_input(tensor, self._shape, self._dtype)
        sound = np.asarray(tensor, np.float32).ravel()
        heard = np.flatnonzero(sound)
        if not len(heard):
            return recognised.answer("", 0.0, self._length)
        text, chance = _understood(self._decoder, sound[: heard[-1] + 1])
        return recognised.answer(text, chance, self._length)

    def memory_bytes(self) -> int:
        return 0

    def close(self) -> None:
        self._decoder = None


def open_session(model: bytes, spec: "ModelFile", *, threads: int = 1) -> PocketSphinxSession:
    """Open a session on the bytes of a recogniser's note.

    Raises:
        ModelError: the note, the model's files or the declared outputs are not what they should be.
    """
    return PocketSphinxSession(model, spec, threads=threads)


def _understood(decoder: "pocketsphinx.Decoder", sound: NDArray[np.float32]) -> tuple[str, float]:
    """Return the text and the geometric mean of its words' posterior probabilities."""
    samples = (np.clip(sound, -1, 1) * LEVEL).astype(np.int16)
    try:
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        words = [min(segment.prob, 1.0) for segment in decoder.seg() or [] if not segment.word.startswith(("<", "["))]
    except Exception as error:  # as above
        raise ModelError(f"pocketsphinx failed: {error}") from error
    if found is None or not found.hypstr:
        return "", 0.0
    return found.hypstr, math.exp(sum(math.log(max(word, 1e-9)) for word in words) / len(words)) if words else 0.0
