"""What a recogniser of speech understood, as numbers that a session hands out and as text for people: pure.

Rules:
- A session gives logits of `unclear` and `understood`, then the text's UTF-8 bytes, one number a byte, zeros behind.
- Nothing heard, signs without a word, and the same words again and again (how recognisers fail on noise) are never
  `understood`.
- A text too long for its place is cut at a word, ends in an ellipsis that says so, and is never `understood` either;
  a recogniser's own ellipsis becomes three dots, so that the sign means nothing else.
- NumPy and standard library only: the inference child loads this and must stay small.
"""

import math
import zlib
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

LABELS = ["unclear", "understood"]
MOST_SURE = 6.0
"""Largest log-odds, either way."""
MAX_COMPRESSION = 2.4
"""Text that packs better than this repeats itself (the limit of Whisper's own code, Radford et al. 2022)."""
LOOP_WORDS = 4
"""The same word so often in a row is no speech; `no no no` is."""
CUT = "…"


def answer(text: str, chance: float, length: int) -> NDArray[np.float32]:
    """Return what a session hands out: logits (2), then the text (length), float32.

    Args:
        text: what was understood.
        chance: how sure the recogniser is of it, 0…1.
        length: numbers for the text.
    """
    words = " ".join(text.replace(CUT, "...").split())
    encoded = _fitted(words, length)
    doubtful = wordless(words) or repeats(words) or len(encoded) < len(words.encode())
    numbers = np.zeros(2 + length, np.float32)
    numbers[1] = -MOST_SURE if doubtful else _log_odds(chance)
    numbers[2 : 2 + len(encoded)] = np.frombuffer(encoded, np.uint8)
    return numbers


def text_of(numbers: NDArray[np.float32]) -> str:
    """Return the text in a session's numbers (length,)."""
    codes = numbers[: int(np.argmin(numbers > 0)) if not (numbers > 0).all() else len(numbers)]
    return codes.clip(0, 255).astype(np.uint8).tobytes().decode("utf-8", "replace")


def wordless(text: str) -> bool:
    """Return whether a text holds no word: on a quiet noise, recognisers write full stops."""
    return not any(sign.isalnum() for sign in text)


def cut(text: str) -> bool:
    """Return whether a text is not all that was understood."""
    return text.endswith(CUT)


def alike(text: str, other: str) -> bool:
    """Return whether two texts have the same words, whatever their case and signs."""
    return _words_of(text) == _words_of(other)


def repeats(text: str) -> bool:
    """Return whether a text says the same again and again."""
    words = text.lower().split()
    run = longest = 1
    for before, word in pairwise(words):
        run = run + 1 if word.strip(".,!?…") == before.strip(".,!?…") else 1
        longest = max(longest, run)
    raw = text.encode()
    return longest >= LOOP_WORDS or (len(raw) > 40 and len(raw) / len(zlib.compress(raw)) > MAX_COMPRESSION)


def _words_of(text: str) -> list[str]:
    return "".join(sign if sign.isalnum() or sign == "'" else " " for sign in text.lower()).split()


def _log_odds(chance: float) -> float:
    inside = min(max(chance, 1e-9), 1 - 1e-9) if math.isfinite(chance) else 1e-9
    return max(-MOST_SURE, min(MOST_SURE, math.log(inside / (1 - inside))))


def _fitted(text: str, length: int) -> bytes:
    encoded = text.encode()
    if len(encoded) <= length:
        return encoded
    room = length - len(CUT.encode())
    whole = encoded[:room].decode("utf-8", "ignore")
    return (whole.rpartition(" ")[0] or whole).encode() + CUT.encode()
