"""Puts the audits into the reference bundles: `python -m models.audits NAME`.

Rules:
- Limits are those of `models/NAME/limits.toml`, agreed before the figures; what fails is written down as failed.
- Figures that a recipe recorded (cross-validation, held-out data) are held as they stand in the manifest. Where files
  are kept from training for good, the bundle judges those too, by the steps of a device.
- Network, thresholds and version stay; the archive has another digest, as any changed file has.
"""

import argparse
import csv
import tempfile
from collections.abc import Callable
from pathlib import Path

from edge.bundle import Bundle, load
from edge.wire.terms import Task
from export import dataset, evidence, limits, pack
from export.evidence import Judged
from export.measuring import judge_items
from export.recorded import BY_RECORD, of_manifest
from models.realdata import folder_of

HERE = Path(__file__).parent
LIMITS = "limits.toml"


def names() -> list[str]:
    """Return the models that have limits."""
    return sorted(path.parent.name for path in HERE.glob(f"*/{LIMITS}"))


def audited(name: str, bundle: Bundle, data: Path | None = None) -> Bundle:
    """Return a bundle with its audit inside.

    Args:
        name: of the model.
        bundle: one of its bundles.
        data: the folder of the data sets; default `$LINESIDE_DATA`.

    Raises:
        ConfigError: files are to be judged, and the data is not there.
    """
    agreed = limits.read(HERE / name / LIMITS)
    judged, by = None, BY_RECORD
    metrics = {key: value for key, value in bundle.manifest.metrics.items() if key not in ("judged", "curves")}
    if name in _KEPT_BACK:
        judged, what = _KEPT_BACK[name](bundle, data)
        metrics |= {"judged": evidence.figures(judged), "curves": evidence.curves(judged)}
        by = f"this bundle's own file on {len(judged.truth)} files never trained on ({what}), and {BY_RECORD}"
    manifest = bundle.manifest.model_copy(update={"metrics": metrics})
    answer = limits.audit(judged, agreed, None, by, of_manifest(manifest))
    return Bundle(bundle.ref, manifest.model_copy(update={"audit": answer}), bundle.files)


def _position(bundle: Bundle, data: Path | None) -> tuple[Judged, str]:
    from models.ball_screw.data import HELD_OUT, position_of

    folder = folder_of("ball-screw", data)
    paths = [path for path in sorted(folder.glob("*/*.jpg")) if position_of(path.name) == HELD_OUT]
    rows = [(path, path.parent.name, path.name, {"position": HELD_OUT}) for path in paths]
    return _judged(bundle, rows, "inspect"), f"position {HELD_OUT}, each picture taken for independent"


def _recordings(bundle: Bundle, data: Path | None) -> tuple[Judged, str]:
    from models.spoken_digits.measure import held_out

    paths = held_out(folder_of("spoken-digits", data))
    words = [path.stem.split("_") for path in paths]
    rows = [(path, word[0], word[1], {"speaker": word[1]}) for path, word in zip(paths, words, strict=True)]
    return _judged(bundle, rows, "keyword"), "recordings 0 to 9 of five known speakers, the unit of intervals"


def _judged(bundle: Bundle, rows: list[tuple[Path, str, str, dict[str, str]]], task: Task) -> Judged:
    """Judge files (path, label, group, slices) through a folder with a table, as anybody's files are."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with (root / dataset.METADATA).open("w", newline="") as file:
            writer = csv.DictWriter(file, ["file", "label", "group", *rows[0][3]])
            writer.writeheader()
            for path, label, group, slices in rows:
                (root / path.name).symlink_to(path.resolve())
                writer.writerow({"file": path.name, "label": label, "group": group, **slices})
        return judge_items(bundle, dataset.load(root, task).items)


_KEPT_BACK: dict[str, Callable[[Bundle, Path | None], tuple[Judged, str]]] = {
    "ball_screw": _position,
    "spoken_digits": _recordings,
}


def main(chosen: list[str], data: Path | None = None) -> None:
    """Audit the bundles of some models and write them in their places."""
    for name in chosen:
        for path in sorted((HERE / name).glob("*.lsb")):
            made = audited(name, load(path), data)
            pack.write(made.manifest, dict(made.files), path)
            failed = [row["limit"] for row in made.manifest.audit["limits"] if not row["passed"]]
            print(f"{path.name}: {'passed' if not failed else 'FAILED: ' + '; '.join(failed)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.audits", description="Audit the reference bundles.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"models (default: all of {', '.join(names())})")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets (default: $LINESIDE_DATA)")
    options = parser.parse_args()
    main(options.names or names(), options.data)
