"""How well is speech found, and what does listening cost?

Rules:
- Against people's own segments of meetings (the union of a recording's speakers), and against constructed truth:
  words placed in silence and in noise of 20, 10, 5 and 0 dB, where a frame is speech if a word lies over its middle.
- Frames of 32 ms for all detectors, so that they are judged on the same; F1 at each one's default setting, area under
  the ROC curve where it gives a probability.
- Where the neural detector's own package is installed (`silero-vad`, which needs torch), its authors' code hears the
  same frames, and the largest difference of any probability from it is shown.
- Cost is processor time over the time of the sound, on a quiet room: of the detector alone, and of a whole device (the
  real command with its child process, its record and its live lines) that hears the room at its own pace.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.devices import cpu_s, rows_of, running, wait_for
from benchmarks.tables import print_table
from edge.errors import ConfigError
from edge.preprocess import F32, resample
from edge.sound import decode_wav, encode_wav
from edge.voice.settings import CascadeSettings, SileroSettings
from edge.voice.silero import FRAME, RATE_HZ, CascadeSegmenter, SileroDetector
from edge.voice.webrtc import FRAME_MS, WebrtcDetector

WORDS, PAUSE_S, SEED = 60, 1.0, 5
LEVELS_DB = (20, 10, 5, 0)
QUIET_S = 60.0
HEARD = RATE_HZ * FRAME_MS // 1000
SETTLE_S, LISTEN_S = 3.0, 20.0
REFERENCE = "silero_vad"
"""Package of the neural detector's authors."""
DEVICE = """\
[device]
name = "phone"
[station.main]
model = "spoken_digits"
bundle = "{bundle}"
actuator = {{ kind = "none" }}
[station.main.source]
kind = "audio_file"
path = "quiet.wav"
real_time = true
segments = {{ kind = "{segmenter}" }}
"""

Hear = Callable[[F32], float]
"""Takes a frame and returns how sure it is of speech."""


@dataclass(frozen=True)
class Scene:
    """Sound at 16 kHz with the truth for each frame of 512 samples."""

    name: str
    sound: F32
    speech: NDArray[np.bool_]


def main(data: Path, *, as_json: bool = False) -> list[dict[str, Any]]:
    """Measure every detector on every scene and print the table.

    Raises:
        ConfigError: the folder does not hold the recordings.
    """
    scenes = [*_meetings(data / "meeting-vad"), *_constructed(data)]
    rows = []
    for name in ("webrtc", "silero", "cascade"):
        for scene in scenes:
            rows.append({"detector": name, "scene": scene.name, **_scores(name, scene)})
        for what, cost in (("cost in a quiet room", _cost(name)), ("the same, whole device", device_cost(name))):
            rows.append({"detector": name, "scene": what, "f1": None, "auc": None, "cpu_share": cost})
    for scene in scenes if find_spec(REFERENCE) else []:
        rows.append({"detector": "reference", "scene": scene.name, **_scores("reference", scene)})
    rows = [{**row, "from the reference": row.get("from the reference")} for row in rows]
    print_table("Speech found, frames of 32 ms", rows, as_json=as_json)
    return rows


def _hearing(name: str) -> Hear:
    if name == "webrtc":
        cheap = WebrtcDetector(2, RATE_HZ)
        return lambda frame: float(cheap.speech(frame[:HEARD]))
    if name == "silero":
        return SileroDetector().probability
    if name == "reference":
        return reference()
    cascade = CascadeSegmenter(CascadeSettings(), RATE_HZ)
    return lambda frame: float(cascade.active(frame))


def _scores(name: str, scene: Scene) -> dict[str, Any]:
    hear = _hearing(name)
    started = time.process_time()
    sure = np.array([hear(frame) for frame in _frames(scene.sound)])
    cost = (time.process_time() - started) / (len(scene.sound) / RATE_HZ)
    said = _begun(sure, SileroSettings()) if name in ("silero", "reference") else sure >= 0.5
    right = float((said & scene.speech).sum())
    f1 = 2 * right / max(1.0, float(said.sum() + scene.speech.sum()))
    scores = {"f1": f1, "auc": float(roc_auc_score(scene.speech, sure)), "cpu_share": cost}
    if name == "reference":
        ours = np.array([hear(frame) for hear in [_hearing("silero")] for frame in _frames(scene.sound)])
        scores["from the reference"] = float(np.abs(ours - sure).max())
    return scores


def reference() -> Hear:
    """Return the neural detector by its authors' own code."""
    torch, package = import_module("torch"), import_module(REFERENCE)
    network = package.load_silero_vad(onnx=True)
    network.reset_states()
    return lambda frame: float(network(torch.from_numpy(frame.copy()), RATE_HZ))


def _begun(sure: NDArray[np.float64], rule: SileroSettings) -> NDArray[np.bool_]:
    """Return which frames are speech where it begins at one probability and ends at a lower one."""
    said, speaking = np.zeros(len(sure), np.bool_), False
    for index, chance in enumerate(sure):
        speaking = said[index] = bool(chance >= (rule.end if speaking else rule.begin))
    return said


def device_cost(name: str, listen_s: float = LISTEN_S) -> float:
    """Return the share of one core that a device takes which listens to a quiet room with this detector."""
    bundle = Path(__file__).parents[1] / "models" / "spoken_digits" / "spoken_digits-1.2.0.lsb"
    with tempfile.TemporaryDirectory() as folder:
        device = Path(folder)
        (device / "quiet.wav").write_bytes(encode_wav(_quiet(listen_s + 4 * SETTLE_S), RATE_HZ))
        with running(device, DEVICE.format(bundle=bundle, segmenter=name)) as process:
            wait_for("the bundle", lambda: any(row.name == "bundle_opened" for row in rows_of(device)[1]))
            time.sleep(SETTLE_S)
            began_s, before_s = time.perf_counter(), cpu_s(process.pid)
            time.sleep(listen_s)
            return (cpu_s(process.pid) - before_s) / (time.perf_counter() - began_s)


def _quiet(seconds: float) -> F32:
    return np.random.default_rng(SEED).normal(0, 1e-4, round(seconds * RATE_HZ)).astype(np.float32)


def _cost(name: str) -> float:
    hear = _hearing(name)
    quiet = _quiet(QUIET_S)
    started = time.process_time()
    for frame in _frames(quiet):
        hear(frame)
    return (time.process_time() - started) / QUIET_S


def _frames(sound: F32) -> Iterator[F32]:
    for at in range(0, len(sound) // FRAME * FRAME, FRAME):
        yield sound[at : at + FRAME]


def _meetings(folder: Path) -> list[Scene]:
    sounds, truths = [], []
    rows = [line.split() for line in _text(folder / "train.rttm").splitlines()]
    for path in sorted(folder.glob("*.wav")):
        sound = _read(path)
        segments = [(float(row[3]), float(row[3]) + float(row[4])) for row in rows if row[1] == path.stem]
        sounds.append(sound[: len(sound) // FRAME * FRAME])
        truths.append(_truth(len(sound), segments))
    return [Scene("meetings", np.concatenate(sounds), np.concatenate(truths))]


def _constructed(data: Path) -> Iterator[Scene]:
    rng = np.random.default_rng(SEED)
    pool = sorted(path for path in (data / "spoken-digits").glob("*.wav"))
    if not pool:
        raise ConfigError(f"no spoken-digits/*.wav in {data}", hint="give the folder with --data")
    parts, segments, at = [], [], 0.0
    for index in rng.choice(len(pool), WORDS, replace=False):
        word = _read(pool[index])
        pause = np.zeros(round(PAUSE_S * RATE_HZ), np.float32)
        parts += [pause, word / max(1e-6, float(np.abs(word).max())) * np.float32(0.5)]
        at += PAUSE_S
        segments.append((at, at + len(word) / RATE_HZ))
        at += len(word) / RATE_HZ
    sound = np.concatenate(parts)
    truth = _truth(len(sound), segments)
    yield Scene("words in silence", sound, truth)
    noise = np.resize(_noise(data / "noise"), len(sound)).astype(np.float32)
    level = float(np.sqrt(np.mean(np.square(np.concatenate(parts[1::2]), dtype=np.float64))))
    noise = noise / float(np.sqrt(np.mean(np.square(noise, dtype=np.float64)))) * np.float32(level)
    for level_db in LEVELS_DB:
        mixed = sound + noise * np.float32(10 ** (-level_db / 20))
        yield Scene(f"words, noise at {level_db} dB", np.clip(mixed, -1, 1).astype(np.float32), truth)


def _truth(samples: int, segments: list[tuple[float, float]]) -> NDArray[np.bool_]:
    middles = (np.arange(samples // FRAME) * FRAME + FRAME / 2) / RATE_HZ
    found = np.zeros(len(middles), np.bool_)
    for first, last in segments:
        found |= (middles >= first) & (middles < last)
    return found


def _noise(folder: Path) -> F32:
    """Return one clip of each kind of noise, one after another."""
    try:
        import soundfile
    except ImportError as error:
        raise ConfigError("noise is in ogg files, which need soundfile", hint="pip install soundfile") from error
    clips = []
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        sound, rate_hz = soundfile.read(sorted(kind.glob("*.ogg"))[0], dtype="float32")
        clips.append(resample(np.asarray(sound, np.float32).reshape(len(sound), -1).mean(axis=1), rate_hz, RATE_HZ))
    return np.concatenate(clips)


def _read(path: Path) -> F32:
    sound, rate_hz = decode_wav(path.read_bytes())
    return resample(sound, rate_hz, RATE_HZ)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read", hint="give the folder with --data") from error
