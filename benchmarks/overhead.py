"""How much time does the pipeline add around the network?

Rules:
- One core. The floor is bare `session.run` on the same tensor, measured in turn with the whole step, so that both
  meet the same machine; what is compared is the ratio, never a time of another run.
- The whole step: gate, preprocessing, network, calibration, decision, record committed (`process` durability),
  action, outcome committed; a 640×480 picture. With decoding of the JPEG as well, stated apart.
- With decoding excluded the frame has just been written to memory, as a camera or decoder leaves it.
- At a line's pace too (a pause between windows): a hot loop flatters.
- Several processes, one after another: where the libraries happen to lie in memory moves the ratio of one process by
  some hundredths. The median process counts; the smallest and the largest stand beside it.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.mobilenet import write_bundle
from benchmarks.tables import print_table
from edge import slots
from edge.actuators import open_actuator
from edge.bundle import Bundle, load
from edge.clock import SystemClock
from edge.engines import Engine, EngineSettings, open_engine
from edge.imaging import decode
from edge.observe import Observer
from edge.pipeline import Parts, Pipeline
from edge.preprocess import image_tensor, to_model
from edge.runtimes import open_session
from edge.serving import ProbationRules, Serving
from edge.slotfile import SlotFile
from edge.store import Store
from edge.values import StationSettings, Window
from edge.wire.manifest import ImageInput

Isolation = Literal["inline", "process"]
PROCESSES = 5
WINDOWS, WARM_UP = 600, 100
"""Of each process."""
PACED_WINDOWS, PACE_S = 50, 0.02
PICTURES = 16
TARGETS = {"inline": 1.25, "process": 1.40}
"""Whole step over bare `session.run`, at p50, decoding excluded."""
P99_TARGET = 2.0
"""p99 of the whole step over its own p50."""


@dataclass(frozen=True)
class Result:
    """One way of running; times in milliseconds."""

    isolation: str
    decode: str
    pace: str
    windows: int
    floor_p50_ms: float
    step_p50_ms: float
    step_p99_ms: float
    ratio_p50: float
    """Median over the windows of step over the floor measured right beside it; of the median process."""
    ratio_low: float
    ratio_high: float
    p99_over_p50: float
    target: float | None


class Pictures:
    """A source that gives the same few pictures for ever, decoded beforehand or on the spot."""

    kind = "memory"
    exhausted = False

    def __init__(self, *, decoding: bool) -> None:
        rng = np.random.default_rng(5)
        self._decoding = decoding
        self._raw = [_jpeg(rng) for _ in range(PICTURES)]
        self._decoded = [decode(raw) for raw in self._raw]
        self._count = 0
        self._frame = self._decoded[0][0]

    def frame_arrives(self) -> None:
        """Put the next frame into memory."""
        self._frame = self._decoded[self._count % PICTURES][0].copy()

    def read(self, wait_s: float) -> Window | None:
        del wait_s
        index = self._count % PICTURES
        self._count += 1
        raw, (_, media_type) = self._raw[index], self._decoded[index]
        data, decode_ms = self._frame, 0.0
        if self._decoding:
            started = time.perf_counter()
            data, media_type = decode(raw)
            decode_ms = (time.perf_counter() - started) * 1000
        return Window("memory", f"{self._count}.jpg", f"{self._count}", media_type, data, raw, decode_ms=decode_ms)

    def close(self) -> None:
        """Nothing to give back."""

    @property
    def first(self) -> NDArray[np.uint8]:
        return self._decoded[0][0]


@dataclass(frozen=True)
class Way:
    """One way of running, and how often."""

    isolation: Isolation
    decoding: bool
    windows: int
    pace_s: float = 0.0


def main(*, as_json: bool = False, windows: int = WINDOWS, processes: int = PROCESSES) -> list[dict[str, Any]]:
    """Measure every way of running and print the table."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mobilenet.lsb"
        write_bundle(path)
        for isolation in ("inline", "process"):
            for way in (
                Way(isolation, decoding=False, windows=windows),
                Way(isolation, decoding=True, windows=windows),
                Way(isolation, decoding=False, windows=PACED_WINDOWS, pace_s=PACE_S),
            ):
                results.append(_together([_in_own_process(path, way) for _ in range(processes)]))
    rows = [asdict(result) for result in results]
    print_table("The pipeline around a MobileNetV2 224 int8, one core", rows, as_json=as_json)
    return rows


def _in_own_process(path: Path, way: Way) -> Result:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as one:
        return one.submit(_measured, path, way).result()


def _measured(path: Path, way: Way) -> Result:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        return _measure(load(path), Path(folder), way)


def _together(processes: list[Result]) -> Result:
    """Return the process with the median ratio, and how far the others lie from it."""
    by_ratio = sorted(processes, key=lambda one: one.ratio_p50)
    middle = statistics.median_low(range(len(by_ratio)))
    return replace(by_ratio[middle], ratio_low=by_ratio[0].ratio_p50, ratio_high=by_ratio[-1].ratio_p50)


def _measure(bundle: Bundle, folder: Path, way: Way) -> Result:
    source = Pictures(decoding=way.decoding)
    spec, model = bundle.model("onnx")
    floor = open_session("onnx", model, spec)
    spec_input = bundle.manifest.input
    assert isinstance(spec_input, ImageInput)
    tensor = to_model(image_tensor(source.first, spec_input), spec.input)
    floors, steps = np.empty(way.windows), np.empty(way.windows)
    with pipeline_of(bundle, folder, way.isolation, source) as pipeline:
        for _ in range(WARM_UP):
            pipeline.run_once()
            floor.infer(tensor)
        for index in range(way.windows):
            time.sleep(way.pace_s)
            floors[index] = _timed_ms(lambda: floor.infer(tensor))
            time.sleep(way.pace_s)
            source.frame_arrives()
            steps[index] = _timed_ms(pipeline.run_once)
    floor.close()
    step_p50, step_p99 = np.percentile(steps, [50, 99])
    ratio = float(np.median(steps / floors))
    return Result(
        isolation=way.isolation,
        decode="included" if way.decoding else "excluded",
        pace=f"{way.pace_s * 1000:.0f} ms apart" if way.pace_s else "hot",
        windows=way.windows,
        floor_p50_ms=float(np.median(floors)),
        step_p50_ms=float(step_p50),
        step_p99_ms=float(step_p99),
        ratio_p50=ratio,
        ratio_low=ratio,
        ratio_high=ratio,
        p99_over_p50=float(step_p99 / step_p50),
        target=None if way.decoding or way.pace_s else TARGETS[way.isolation],
    )


@contextmanager
def pipeline_of(bundle: Bundle, folder: Path, isolation: Isolation, source: Pictures) -> Iterator[Pipeline]:
    """Give a station's pipeline around a bundle, with a record of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        data, clock = Path(own), SystemClock()
        store = Store.open(data / "lineside.sqlite", clock=clock, durability="process")
        slot_file = SlotFile(data, bundle.ref.name, clock)
        slot_file.change(lambda book, now: slots.preloaded(book, bundle.ref, now))
        opener = partial(_open, isolation=isolation)
        serving = Serving(slot_file, opener, _RULES, clock, lambda *_: None)
        serving.offer(_open(bundle, isolation=isolation))
        settings = StationSettings(station="bench", deadline_ms=10_000)
        parts = Parts(
            source=source,
            serving=serving,
            actuator=open_actuator("log", {"path": str(data / "actions.jsonl")}, clock=clock),
            store=store,
            observer=Observer("bench", bundle.ref.name, store, clock, "boot", 60.0),
            settings=lambda: settings,
            clock=clock,
            boot_id="boot",
        )
        try:
            yield Pipeline(parts)
        finally:
            serving.close()
            store.close()


_RULES = ProbationRules(windows=1, seconds=0, max_deadline_misses=0, max_memory_bytes=2**40)


def _open(bundle: Bundle, *, isolation: Isolation, **limits: Any) -> Engine:
    return open_engine(bundle, EngineSettings(runtime="onnx", isolation=isolation, deadline_s=10.0), **limits)


def _timed_ms(work: Any) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def _jpeg(rng: np.random.Generator) -> bytes:
    coarse = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    noisy = np.clip(smooth + rng.integers(-12, 12, smooth.shape), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
