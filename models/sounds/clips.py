"""Reads clips of sound at a rate that is asked for.

Rules:
- WAV is read by the device's own decoder; other formats by soundfile, which only training needs.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import ConfigError
from edge.preprocess import resample
from edge.sound import decode_wav

F32 = NDArray[np.float32]


def read(path: Path, rate_hz: int) -> F32:
    """Return a clip as (n,) float32 in −1…1 at `rate_hz`, mono.

    Raises:
        SourceError: a WAV file that cannot be read.
        ConfigError: another format, and soundfile is not installed.
    """
    if path.suffix.lower() == ".wav":
        samples, found_hz = decode_wav(path.read_bytes())
        return resample(samples, found_hz, rate_hz)
    try:
        import soundfile
    except ImportError as error:
        raise ConfigError(f"{path.name}: reading it needs soundfile", hint="pip install soundfile") from error
    samples, found_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return resample(np.ascontiguousarray(samples.mean(1)), int(found_hz), rate_hz)


def noises(folder: Path, folds: Iterable[int], rate_hz: int) -> dict[str, list[F32]]:
    """Return the noises of some folds of ESC-10 by kind.

    Args:
        folder: `noise`, with a folder per kind; the first digit of a name is its fold.
        folds: which; folds share no recording.
        rate_hz: of what comes back.
    """
    wanted = {str(fold) for fold in folds}
    paths = sorted(path for path in folder.glob("*/*") if path.name[:1] in wanted)
    found: dict[str, list[F32]] = {}
    for path in paths:
        found.setdefault(path.parent.name, []).append(read(path, rate_hz))
    return found


def digest_of(named: Iterable[tuple[str, F32]]) -> str:
    """Return one SHA-256 over names and samples, in their order."""
    digest = hashlib.sha256()
    for name, samples in named:
        digest.update(name.encode() + b"\0" + samples.tobytes())
    return digest.hexdigest()
