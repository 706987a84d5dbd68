"""`lineside-edge replay`: judges a recorded decision's kept input again and compares the scores.

Rules:
- The same bundle (by digest), the same runtime, the same code: on one machine the scores are the same to the bit.
- Where that is not possible, the answer says plainly why.
- Exit codes: 0 the same, 1 different, 4 cannot be replayed.
"""

import json
from pathlib import Path
from typing import Any, TextIO

from edge.bundle import load
from edge.clock import SystemClock
from edge.config import Config, StationSection, load_config
from edge.engines import EngineSettings, open_engine
from edge.errors import LinesideError, ModelError
from edge.privacy import is_sound
from edge.sources.files import decode_window
from edge.station import store_path
from edge.steps import judge
from edge.store import Store
from edge.values import StationSettings
from edge.wire.manifest import RuntimeName
from edge.wire.rows import DecisionRow
from edge.work import Work

SAME, DIFFERENT, IMPOSSIBLE = 0, 1, 4


def run(config_path: Path, seq: int, *, as_json: bool, out: TextIO | None = None) -> int:
    """Replay one decision and print what came of it; return the exit code."""
    config = load_config(config_path)
    try:
        recorded, scores = replay(config, seq)
    except LinesideError as error:
        answer: dict[str, Any] = {"decision": seq, "replayed": False, "why": str(error)}
        print(json.dumps(answer) if as_json else f"decision {seq} cannot be replayed: {error}", file=out)
        return IMPOSSIBLE
    same = recorded.scores == scores
    answer = {"decision": seq, "replayed": True, "same": same, "recorded": recorded.scores, "scores": scores}
    print(json.dumps(answer) if as_json else _words(recorded, scores, same=same), file=out)
    return SAME if same else DIFFERENT


def replay(config: Config, seq: int) -> tuple[DecisionRow, dict[str, float]]:
    """Return a recorded decision and the scores that its kept input gives now.

    Raises:
        ModelError: there is no such decision, its input was not kept, or its bundle is not here any more.
    """
    with Store.open_read_only(store_path(config), clock=SystemClock()) as store:
        recorded = store.decision(seq)
        if recorded is None:
            raise ModelError(f"there is no decision {seq} in the record")
        kept = store.inputs.get(recorded.input.digest)
    if kept is None:
        raise ModelError(_why_not(recorded, config.station.get(recorded.station)))
    if recorded.bundle is None:
        raise ModelError("no bundle decided it")
    bundle = load(_bundle_path(config, recorded.bundle.digest), expected_digest=recorded.bundle.digest)
    station = config.station.get(recorded.station)
    settings = EngineSettings(
        runtime=_runtime(recorded.runtime or ""),
        isolation="inline",
        threads=station.threads if station else 1,
    )
    engine = open_engine(bundle, settings)
    try:
        window = decode_window(kept[0], name=recorded.input.name, source="replay", media_type=kept[1])
        work = Work(window, StationSettings(recorded.station, deadline_ms=float("inf")), engine)
        return recorded, judge(work).scores
    finally:
        engine.session.close()


def _why_not(recorded: DecisionRow, station: StationSection | None) -> str:
    """Return in plain words why there is no input to judge again."""
    name = recorded.input.name
    if recorded.forgotten:
        return f"its input {name} was erased on request"
    if recorded.input.features is not None:
        return f'only features of its input {name} were kept (keep = "features"), which nothing can judge again'
    if recorded.input.kept:
        return f"its input {name} was kept, but its time is over or the record was full"
    if is_sound(recorded.input.media_type) and station is not None and not station.sound_agreed:
        return f"its input {name} was not kept: those who are heard have not agreed (sound_consent)"
    return f'its input {name} was not kept; keep = "all" at the station keeps every one'


def _runtime(description: str) -> RuntimeName:
    """Return which runtime gave a description, see `Session.description`."""
    first = description.lower().partition(" ")[0].rstrip(",")
    named: dict[str, RuntimeName] = {"whisper": "whisper", "pocketsphinx": "pocketsphinx"}
    return named.get(first, "tflite" if "litert" in first else "onnx")


def _bundle_path(config: Config, digest: str) -> Path:
    path = config.device.data / "bundles" / f"{digest}.lsb"
    if not path.exists():
        raise ModelError(f"its bundle {digest[:12]}… is not on this device any more")
    return path


def _words(recorded: DecisionRow, scores: dict[str, float], *, same: bool) -> str:
    lines = [f"decision {recorded.seq}: {'the same scores' if same else 'DIFFERENT scores'}"]
    for label in {**recorded.scores, **scores}:
        before, now = recorded.scores.get(label), scores.get(label)
        lines.append(f"  {label:<16} recorded {before!r:<24} now {now!r}")
    return "\n".join(lines)
