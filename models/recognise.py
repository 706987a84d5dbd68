"""Lets finished bundles recognise strange inputs by their own network: `python -m models.recognise NAME`.

Rules:
- Nothing is trained. The mean of a map that the network computes anyway becomes its features (`export.features`), or
  those that it gives already are taken; logits stay the same bit for bit, in both formats, or nothing is written.
- The limit is for the next board, the next speaker: each is scored by what was known of the others (`fit_apart`).
- Run `python -m models.audits NAME` after it: the audit names what the bundle records.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle, load
from edge.errors import ModelError
from edge.wire.manifest import ModelFile
from export import golden, ood, pack, reference, strange
from export.features import maps, with_features
from export.tflite import write_tflite
from models.realdata import folder_of

HERE = Path(__file__).parent
_RANGE_EXAMPLES, _STRANGE_SEED = 128, 2
_NOTE = "holds before inputs out of distribution are deferred, which takes a few more off"


@dataclass(frozen=True)
class Known:
    """Inputs that a network was made for, preprocessed (n, …), with what belongs together and what is alike."""

    values: NDArray[Any]
    units: NDArray[Any]
    blocks: NDArray[Any]
    unit: str
    block: str
    map_name: str
    """A part of the name of the map whose mean is taken; empty for the last one. Not used where there are features."""
    margin: float = 1.0
    """Factor on the limit, where blocks are too few to know how much the next one differs."""
    told: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Other inputs (n, …) by what they are, of which the figures say how many are taken for strange."""


def recognising(bundle: Bundle, known: Known) -> Bundle:
    """Return the bundle with features in its network and a reference of what they look like.

    Raises:
        ModelError: a logit changed, or the network gives features already.
    """
    name, written = _written(bundle, known)

    def features(values: NDArray[Any]) -> ood.Features:
        found = golden.split(golden.answers(*written["onnx"], values), written["onnx"][1]).features
        assert found is not None
        return found

    made = strange.strangers(known.values, _STRANGE_SEED)
    found = ood.fit_apart(
        features(known.values),
        known.units,
        known.blocks,
        {kind: features(values) for kind, values in made.items()},
        unit=known.unit,
        block=known.block,
        margin=known.margin,
        told={what: features(values) for what, values in known.told.items()},
    )
    return _assembled(bundle, written, found, name)


def _written(bundle: Bundle, known: Known) -> tuple[str, dict[str, tuple[bytes, ModelFile]]]:
    """Return where the features come from, and the files that give them."""
    spec, content = bundle.model("onnx")
    if spec.features is not None:
        return spec.features.name, {name: bundle.model(name)[::-1] for name in bundle.manifest.models}
    name = [name for name, _ in maps(content) if known.map_name in name][0 if known.map_name else -1]
    spread = np.linspace(0, len(known.values) - 1, _RANGE_EXAMPLES).astype(int)
    quantized = with_features(content, spec, name, known.values[spread])
    written = {"onnx": (quantized.shipped, quantized.spec.model_copy(update={"file": spec.file}))}
    if "tflite" in bundle.manifest.models:
        written["tflite"] = write_tflite(quantized, bundle.manifest.models["tflite"].file)
    return name, written


def _assembled(bundle: Bundle, written: dict[str, Any], found: ood.Recognition, name: str) -> Bundle:
    manifest, files = bundle.manifest, dict(bundle.files)
    extras: dict[str, str] = {}
    for runtime, (content, spec) in written.items():
        inputs, expected = bundle.golden(runtime)
        answers = golden.answers(content, spec, inputs)
        labels = expected.shape[1]
        if not np.array_equal(answers[:, :labels], expected):
            raise ModelError(f"{runtime}: expected the logits as they were, got others")
        files[spec.file] = content
        extras[runtime] = f"golden_extras_{runtime}.npy"
        files[extras[runtime]] = golden.as_npy(answers[:, labels:])
    files[found.spec.file] = found.content
    export = {**manifest.metrics["export"], "out_of_distribution": {**found.figures, "map": name}}
    sizes = {runtime: len(content) for runtime, (content, _) in written.items()}
    policy = manifest.policy
    if policy.guarantee is not None and _NOTE not in policy.guarantee.note:
        note = "; ".join(text for text in (policy.guarantee.note, _NOTE) if text)
        policy = policy.model_copy(update={"guarantee": policy.guarantee.model_copy(update={"note": note})})
    changed = manifest.model_copy(
        update={
            "models": {runtime: spec for runtime, (_, spec) in written.items()},
            "policy": policy,
            "golden": manifest.golden.model_copy(update={"extras": extras}),
            "out_of_distribution": found.spec,
            "reference": {**manifest.reference, **reference.histograms({"ood": found.scores})},
            "metrics": {**manifest.metrics, "export": {**export, "sizes_bytes": sizes}},
            "files": pack.file_entries(files),
        }
    )
    return Bundle(bundle.ref, changed, files)


def _commands(data: Path | None) -> Known:
    from models.commands.augment import at_snr
    from models.commands.data import INPUT, TRAIN_NOISE, load_clips
    from models.commands.train import SEED
    from models.sounds.clips import noises

    clips = load_clips(folder_of("speech-commands", data))
    noise = noises(folder_of("noise", data), TRAIN_NOISE, INPUT.sample_rate_hz)
    # Words beside machines are what it was made for as well.
    heard = [at_snr(clips, {} if snr is None else noise, snr, SEED) for snr in (None, 10, 0)]
    speakers = np.tile([clip.speaker for clip in clips], len(heard))
    folds = np.unique(speakers, return_inverse=True)[1] % 5
    return Known(np.concatenate(heard), speakers, folds, "speaker", "fifth of the speakers", "")


def _spoken_digits(data: Path | None) -> Known:
    from models.spoken_digits.augment import plain_features
    from models.spoken_digits.data import load_recordings

    recordings = [one for one in load_recordings(folder_of("spoken-digits", data)) if one.trainable][::2]
    speakers = np.array([one.speaker for one in recordings])
    return Known(plain_features(recordings), np.arange(len(recordings)), speakers, "recording", "speaker", "")


def _pcb(data: Path | None) -> Known:
    from models.pcb.data import as_values, load_scans, pair_of

    scans = load_scans(folder_of("pcb", data))
    pairs = sorted({pair_of(scan.name) for scan in scans})
    some = {pair for place, pair in enumerate(pairs) if place % 4 == 0 or pair.startswith("12000")}
    kept = [scan for scan in scans if pair_of(scan.name) in some]
    units, boards = np.array([pair_of(scan.name) for scan in kept]), np.array([scan.board for scan in kept])
    return Known(as_values(kept), units, boards, "pair", "board", "stem.0")


def _ball_screw(data: Path | None) -> Known:
    from models.ball_screw.data import DOUBTFUL, HELD_OUT, OTHER_MACHINES, as_values, load_photos

    photos = load_photos(folder_of("ball-screw", data))
    bench = [p for p in photos if p.position not in (HELD_OUT, OTHER_MACHINES) and p.name not in DOUBTFUL]
    told = {
        "held-out position": as_values([photo for photo in photos if photo.position == HELD_OUT]),
        "other machines": as_values([photo for photo in photos if photo.position == OTHER_MACHINES]),
    }
    positions = np.array([photo.position for photo in bench])
    return Known(as_values(bench), np.arange(len(bench)), positions, "picture", "position", "365", 2.0, told)


def _anomaly(data: Path | None) -> Known:
    from models.magnetic_tile.crossval import as_values
    from models.magnetic_tile.data import load_photos

    photos = load_photos(folder_of("magnetic-tile", data))
    good = [photo for photo in photos if not photo.defective]
    told = {"defective tiles": as_values([photo for photo in photos if photo.defective])}
    parts, folds = np.array([photo.part for photo in good]), np.array([photo.fold for photo in good])
    return Known(as_values(good), parts, folds, "part", "range of numbers", "", told=told)


KNOWN: dict[str, Callable[[Path | None], Known]] = {
    "anomaly": _anomaly,
    "ball_screw": _ball_screw,
    "commands": _commands,
    "pcb": _pcb,
    "spoken_digits": _spoken_digits,
}


def main(chosen: list[str], data: Path | None = None) -> None:
    """Change the bundles of some models in their places."""
    for name in chosen:
        known = KNOWN[name](data)
        for path in sorted((HERE / name).glob("*.lsb")):
            made = recognising(load(path), known)
            pack.write(made.manifest, dict(made.files), path)
            print(path.name, made.manifest.metrics["export"]["out_of_distribution"], flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.recognise", description="Let bundles recognise strangers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"models (default: all of {', '.join(KNOWN)})")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets (default: $LINESIDE_DATA)")
    options = parser.parse_args()
    main(options.names or list(KNOWN), options.data)
