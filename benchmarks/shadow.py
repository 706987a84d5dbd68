"""Does a candidate in the shadow slow down the network that decides?

Rules:
- The same station with and without a shadow, in turn, block by block, so that both meet the same machine.
- At a line's pace, on all cores that there are; the candidate is as large as the incumbent.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.mobilenet import write_bundle
from benchmarks.overhead import Pictures, pipeline_of
from benchmarks.tables import print_table
from edge import slots
from edge.bundle import Bundle, load
from edge.clock import SystemClock
from edge.engines import EngineSettings, open_engine
from edge.shadow import Shadow, open_staged
from edge.slotfile import SlotFile
from edge.store import Store
from edge.values import StationSettings

BLOCKS, WINDOWS, WARM_UP = 10, 200, 20
PACE_S = 0.03
CPU_SHARE = 0.25
TARGET = 1.10
"""p99 of the incumbent with the shadow over p99 without."""
START_S = 20.0


def main(*, as_json: bool = False, blocks: int = BLOCKS) -> list[dict[str, Any]]:
    """Measure and print the table."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mobilenet.lsb"
        write_bundle(path)
        row = _measure(load(path), path, Path(folder), blocks)
    print_table("A candidate in the shadow, MobileNetV2 224 int8 both", [row], as_json=as_json)
    return [row]


def _measure(bundle: Bundle, path: Path, folder: Path, blocks: int) -> dict[str, Any]:
    source = Pictures(decoding=False)
    without: list[float] = []
    beside: list[float] = []
    judged = 0
    with pipeline_of(bundle, folder, "process", source) as pipeline:
        for _ in range(blocks):
            without += _block(pipeline, source, None)
            with _staged(bundle, path) as (shadow, data):
                beside += _block(pipeline, source, shadow)
                shadow.stop(START_S)
                with Store.open_read_only(data / "lineside.sqlite", clock=SystemClock()) as store:
                    judged += len(store.shadow.last(10_000))
    p50s = float(np.median(without)), float(np.median(beside))
    p99s = float(np.percentile(without, 99)), float(np.percentile(beside, 99))
    return {
        "windows": len(without),
        "shadow_judged": judged,
        "p50_without_ms": p50s[0],
        "p50_with_ms": p50s[1],
        "p99_without_ms": p99s[0],
        "p99_with_ms": p99s[1],
        "p99_ratio": p99s[1] / p99s[0],
        "target": TARGET,
    }


def _block(pipeline: Any, source: Pictures, shadow: Shadow | None) -> list[float]:
    times = []
    for index in range(WARM_UP + WINDOWS):
        time.sleep(PACE_S)
        source.frame_arrives()
        started = time.perf_counter()
        pipeline.run_once()
        if shadow is not None and pipeline.last is not None:
            window, decision = pipeline.last
            shadow.offer(window, decision)
        took_ms = (time.perf_counter() - started) * 1000
        if index >= WARM_UP:
            times.append(took_ms)
    return times


@contextmanager
def _staged(bundle: Bundle, path: Path) -> Iterator[tuple[Shadow, Path]]:
    """Run the bundle in the shadow, with a record of its own."""
    with tempfile.TemporaryDirectory() as own:
        data, clock = Path(own), SystemClock()
        slot_file = SlotFile(data, bundle.ref.name, clock)
        slot_file.bundle_path(bundle.ref).parent.mkdir(parents=True, exist_ok=True)
        slot_file.bundle_path(bundle.ref).write_bytes(path.read_bytes())
        slot_file.change(lambda book, now: slots.downloaded(book, bundle.ref, now))
        settings = EngineSettings(runtime="onnx", isolation="process", deadline_s=10.0, nice=19)
        shadow = Shadow(
            "bench",
            slot_file,
            lambda slot, book: open_staged(slot, book, lambda made: open_engine(made, settings)),
            lambda: Store.open(data / "lineside.sqlite", clock=clock, durability="process"),
            lambda: StationSettings(station="bench", keep="none"),
            clock,
            "boot",
            cpu_share=CPU_SHARE,
            tell_every_s=60.0,
        )
        shadow.start()
        until_s = time.monotonic() + START_S
        while shadow.candidate is None and time.monotonic() < until_s:
            time.sleep(0.01)
        yield shadow, data
