"""Measures a bundle's model files here: size, multiplications, memory, latency, float against int8.

Rules:
- One thread unless asked otherwise, batch 1; bursts of all files take turns, so that a busy machine hurts all alike.
- Memory is the peak of a process that loads the file and runs it, less that of one that only imports the engine.
- What is chosen by it stands in `export.formats`.
- An estimate for another machine is made only from a measurement there; without one there is no claim.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.errors import ConfigError
from edge.preprocess import to_model
from edge.runtimes import open_session
from edge.wire.manifest import ModelFile
from export.floating import float_file

_ROUNDS, _BURST_S = 8, 0.12
FLOAT = "float network"
"""Name of the network before quantization among the speeds."""
WORTH_A_WORD = 1.25
"""What is not this much faster is not worth a word: machines differ by as much."""
Files = dict[str, tuple[ModelFile, bytes]]
"""Model files by name, what the manifest says of each with its content."""


@dataclass(frozen=True)
class Speed:
    """One model file on this machine."""

    name: str
    size_bytes: int
    p50_ms: float
    p99_ms: float
    peak_memory_bytes: int | None
    """None where the process that measures it failed."""
    relative: float
    """Time over that of the first file, the median over rounds in which all took turns: steady on a busy machine."""

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def measure(bundle: Bundle, float_model: onnx.ModelProto | None = None) -> dict[str, Speed]:
    """Return the speed of each file of a bundle by its engine, and of the float network (`FLOAT`) if it is given."""
    values = np.asarray(bundle.golden(bundle.manifest.prefer)[0])
    files: Files = {str(name): bundle.model(name) for name in bundle.manifest.models}
    if float_model is not None:
        content, spec = float_file(float_model, values)
        files[FLOAT] = (spec, content)
    return with_memory(of_files(files, values), files)


def of_files(files: Files, values: NDArray[Any], threads: int = 1, rounds: int = _ROUNDS) -> dict[str, Speed]:
    """Return the speed of model files that take the same values, the memory not measured.

    Args:
        files: by name, what the manifest says of each with its content.
        values: (n, …) preprocessed; the first is what all of them are given.
        threads: of each engine.
        rounds: how often each has its turn.
    """
    given = {name: (spec, content, to_model(values[:1], spec.input)) for name, (spec, content) in files.items()}
    taken = _bursts(given, threads, rounds)
    middles = {name: np.array([np.median(burst) for burst in bursts]) for name, bursts in taken.items()}
    first = middles[next(iter(middles))]
    return {
        name: Speed(
            f"{spec.runtime} {spec.precision}",
            len(content),
            round(float(np.quantile(np.concatenate(taken[name]), 0.5)), 4),
            round(float(np.quantile(np.concatenate(taken[name]), 0.99)), 4),
            None,
            round(float(np.median(middles[name] / first)), 4),
        )
        for name, (spec, content, _) in given.items()
    }


def with_memory(speeds: dict[str, Speed], files: Files) -> dict[str, Speed]:
    """Return the speeds with the peak memory of each file, one process after the other."""
    return {name: replace(speed, peak_memory_bytes=_peak_memory(*files[name])) for name, speed in speeds.items()}


def compared(speeds: dict[str, Speed], chosen: str) -> str:
    """Return in words how the engine that the bundle prefers did here beside the other, and int8 beside float.

    Args:
        speeds: of the bundle's files, and of the float network if it was measured.
        chosen: the engine that the bundle prefers.
    """
    own = {name: speed for name, speed in speeds.items() if name != FLOAT}
    words = [f"prefers {chosen}", ", ".join(f"{speed.name} {speed.p50_ms:.2f} ms" for speed in speeds.values())]
    for name, speed in own.items():
        ratio = own[chosen].relative / speed.relative
        if name != chosen and ratio >= WORTH_A_WORD:
            words.append(f"{name} is {ratio:.1f} times as fast here: --prefer {name} ships that choice")
    if FLOAT in speeds:
        ratio = own[chosen].relative / speeds[FLOAT].relative
        size = speeds[FLOAT].size_bytes / own[chosen].size_bytes
        if ratio >= WORTH_A_WORD:
            words.append(
                f"in float it is {ratio:.1f} times as fast here and {size:.1f} times as large: --precision float32 "
                "ships that choice"
            )
    return "; ".join(words)


def multiplications(model: onnx.ModelProto) -> int:
    """Return the multiply-accumulates of one inference: convolutions and linear layers."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    known = [*inferred.value_info, *inferred.input, *inferred.output]
    shapes = {v.name: [d.dim_value or 1 for d in v.type.tensor_type.shape.dim] for v in known}
    shapes |= {item.name: list(item.dims) for item in inferred.initializer}
    total = 0
    for node in inferred.node:
        if node.op_type == "Conv":
            total += int(np.prod(shapes[node.output[0]]) * np.prod(shapes[node.input[1]][1:]))
        elif node.op_type in ("Gemm", "MatMul"):
            total += int(np.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1])
    return total


def estimate(here_ms: float, profile: str | None) -> str:
    """Return what can be said about another machine.

    Args:
        here_ms: median latency here.
        profile: NAME, or NAME=FACTOR where somebody measured how many times as long any bundle takes there as here.

    Raises:
        ConfigError: the factor is not a number above 0.
    """
    if profile is None:
        return "no profile was named"
    name, given, factor = profile.partition("=")
    if given:
        times = _factor(profile, factor)
        return f"{name}: about {here_ms * times:.2f} ms, {here_ms:.2f} ms here × {times:g}, the factor that was given"
    return (
        f"no claim for {name}: {here_ms:.2f} ms were measured here and nothing there; run `lineside-edge infer BUNDLE "
        f"FILES --json` on such a device, its latency_ms is the answer; the ratio of both, as --profile {name}=RATIO, "
        "gives the estimate for every later bundle"
    )


def _factor(profile: str, text: str) -> float:
    try:
        times = float(text)
    except ValueError:
        times = 0.0
    if not 0 < times < float("inf"):
        raise ConfigError(
            f"--profile {profile}: expected NAME or NAME=FACTOR, a number above 0",
            hint="how many times as long a bundle takes there as here, measured with `lineside-edge infer` on both",
        )
    return times


def _bursts(
    given: dict[str, tuple[ModelFile, bytes, NDArray[Any]]], threads: int, rounds: int
) -> dict[str, list[list[float]]]:
    sessions = {
        name: open_session(spec.runtime, content, spec, threads=threads) for name, (spec, content, _) in given.items()
    }
    bursts: dict[str, list[list[float]]] = {name: [] for name in given}
    try:
        for _ in range(rounds):
            for name, session in sessions.items():
                tensor = given[name][2]
                session.infer(tensor)
                burst: list[float] = []
                until = time.perf_counter() + _BURST_S
                while time.perf_counter() < until or len(burst) < 3:
                    began = time.perf_counter()
                    session.infer(tensor)
                    burst.append((time.perf_counter() - began) * 1000)
                bursts[name].append(burst)
    finally:
        for session in sessions.values():
            session.close()
    return bursts


def _peak_memory(spec: ModelFile, content: bytes) -> int | None:
    """Return the peak memory of a process of its own that runs the file a few times."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(content)
        command = [sys.executable, "-m", "export.speed", str(path), spec.model_dump_json()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    return int(json.loads(done.stdout.splitlines()[-1])["peak_memory_bytes"])


def _child(path: str, text: str) -> None:
    spec = ModelFile.model_validate_json(text)
    import_module(f"edge.runtimes.{spec.runtime}")
    before = _peak_bytes()
    session = open_session(spec.runtime, Path(path).read_bytes(), spec, threads=1)
    tensor = np.zeros(spec.input.shape, np.dtype(spec.input.dtype))
    for _ in range(5):
        session.infer(tensor)
    after = _peak_bytes()
    session.close()
    print(json.dumps({"peak_memory_bytes": after - before}))


def _peak_bytes() -> int:
    """Return this process's peak memory; the kernel's own count, since that of getrusage begins with the parent's."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2])
