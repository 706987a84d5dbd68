"""Sound features that are known by name, and how a user says others: pure.

Rules:
- Every number of the front end stands in the bundle; a name here only saves typing them.
"""

from typing import Any

from pydantic import ValidationError

from edge.errors import ConfigError
from edge.preprocess import audio_shape
from edge.wire.manifest import AudioInput

MLPERF_TINY = AudioInput(
    sample_rate_hz=16000,
    window_s=1.0,
    frame_ms=30.0,
    hop_ms=20.0,
    fft_size=512,
    spectrum="magnitude",
    mel_bands=40,
    low_hz=20.0,
    high_hz=4000.0,
    filters="mel",
    features="mfcc",
    coefficients=10,
    place="start",
    level="peak",
)
"""MLPerf Tiny's keyword spotting (github.com/mlcommons/tiny, keyword_spotting/get_dataset.py), 49 × 10."""
NAMED = {"mlperf-tiny": MLPERF_TINY}
KINDS = ("log_mel", "mfcc", "waveform")


def sound_input(features: str, settings: list[str]) -> AudioInput:
    """Return the front end that is meant.

    Args:
        features: a key of `NAMED`, or one of `KINDS`.
        settings: `name=value` for fields of `AudioInput`, each changing one number.

    Raises:
        ConfigError: an unknown name, or numbers that do not fit.
    """
    if features not in NAMED and features not in KINDS:
        raise ConfigError(f"--features {features}: expected one of {', '.join([*KINDS, *NAMED])}")
    values: dict[str, Any] = NAMED[features].model_dump() if features in NAMED else {"features": features}
    values.setdefault("sample_rate_hz", 16000)
    values.setdefault("window_s", 1.0)
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign or name not in AudioInput.model_fields or name in ("kind", "features"):
            fields = ", ".join(name for name in AudioInput.model_fields if name not in ("kind", "features"))
            raise ConfigError(f"--sound {setting}: expected name=value", hint=f"the names are: {fields}")
        values[name] = value
    try:
        spec = AudioInput.model_validate(values)
        if min(audio_shape(spec)) < 1:
            raise ConfigError("--sound: the window is shorter than one frame")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"--sound {place}: {first['msg']}") from error
    return spec
