"""`lineside-edge infer`: judges files with a bundle, as a device would, without recording or acting.

Rules:
- One line a file, in natural order; unreadable files are named and counted and the others are still done.
- Exit codes: 0 all judged, 2 wrong arguments or bundle, 3 some files could not be read.
"""

import glob
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from natsort import natsorted, ns

from edge.bundle import load
from edge.engines import Engine, EngineSettings, open_engine
from edge.errors import ConfigError
from edge.runtimes import RUNTIMES
from edge.sources.files import media_kind, read_window
from edge.steps import judge, where
from edge.values import Judgement, StationSettings, Window
from edge.wire.rows import Peak
from edge.work import Work

UNREADABLE = 3
"""Exit code when at least one file could not be read."""


@dataclass(frozen=True)
class Judged:
    """One file's result."""

    path: str
    window: Window
    judgement: Judgement
    latency_ms: float
    where: list[Peak] | None = None
    text: str | None = None


def run(bundle_path: Path, paths: list[str], *, runtime: str, as_json: bool, out: TextIO | None = None) -> int:
    """Judge files, folders and patterns; print a line for each and a summary; return the exit code."""
    bundle = load(bundle_path)
    settings = EngineSettings(runtime=_runtime(runtime), isolation="inline", deadline_s=60.0)
    engine = open_engine(bundle, settings)
    counts: Counter[str] = Counter()
    started = time.perf_counter()
    try:
        for path in expand(paths, engine.manifest.input.kind):
            result = _judge(path, engine)
            counts["files"] += 1
            counts["unreadable" if result.window.data is None else result.judgement.verdict] += 1
            print(json.dumps(as_record(result, engine)) if as_json else as_line(result), file=out)
    finally:
        engine.session.close()
    summary = _summary(counts, engine, time.perf_counter() - started)
    print(summary, file=sys.stderr if as_json else out)
    return UNREADABLE if counts["unreadable"] else 0


def expand(paths: list[str], kind: str) -> Iterator[Path]:
    """Yield the files that are meant: a file as it is, a folder's pictures or sounds, a pattern's matches.

    Raises:
        ConfigError: there is nothing at a path.
    """
    for text in paths:
        path = Path(text)
        if path.is_dir():
            found = [entry for entry in path.rglob("*") if entry.is_file() and media_kind(entry) == kind]
        elif path.exists() or not glob.has_magic(text):
            found = [path]
        else:
            found = [Path(match) for match in glob.glob(text, recursive=True)]  # noqa: PTH207 - absolute patterns too
            if not found:
                raise ConfigError(f"{text}: nothing matches", hint="give files, folders or patterns")
        yield from natsorted(found, key=str, alg=ns.PATH)


def as_record(result: Judged, engine: Engine) -> dict[str, Any]:
    """Return a result as a JSON line holds it."""
    judgement = result.judgement
    return {
        "path": result.path,
        "verdict": judgement.verdict,
        "label": judgement.label,
        "confidence": judgement.confidence,
        "reason": judgement.reason,
        "detail": judgement.detail,
        "scores": judgement.scores,
        "where": None if result.where is None else [peak.model_dump() for peak in result.where],
        "text": result.text,
        "latency_ms": round(result.latency_ms, 3),
        "bundle": engine.ref.digest,
    }


def as_line(result: Judged) -> str:
    """Return a result as a line for people."""
    judgement = result.judgement
    confidence = "" if judgement.confidence is None else f"{judgement.confidence:.3f}"
    why = f"  {judgement.reason}: {judgement.detail}" if judgement.detail else f"  {judgement.reason or ''}"
    said = f"  “{result.text}”" if result.text is not None else ""
    return (
        f"{judgement.verdict:<7} {judgement.label or '-':<16} {confidence:>5} {result.latency_ms:8.2f} ms  "
        f"{result.path}{said}{why.rstrip()}"
    )


def _judge(path: Path, engine: Engine) -> Judged:
    started = time.perf_counter()
    window = read_window(path, source="file")
    work = Work(window, StationSettings(station="infer", deadline_ms=float("inf")), engine)
    judgement = judge(work)
    looked_at = where(work, judgement)
    return Judged(str(path), window, judgement, (time.perf_counter() - started) * 1000, looked_at, work.text)


def _summary(counts: Counter[str], engine: Engine, took_s: float) -> str:
    files = counts["files"]
    verdicts = ", ".join(f"{counts[v]} {v}" for v in ("pass", "divert", "accept", "defer") if counts[v])
    unreadable = f", {counts['unreadable']} unreadable" if counts["unreadable"] else ""
    ref = engine.ref
    return (
        f"{files} files: {verdicts or 'none judged'}{unreadable} · {took_s:.1f} s · "
        f"{ref.name} {ref.version} ({ref.digest[:12]}) on {engine.session.description}"
    )


def _runtime(name: str) -> Any:
    if name != "auto" and name not in RUNTIMES:
        raise ConfigError(f"--runtime: expected auto, {', '.join(RUNTIMES)}, got {name!r}")
    return name
