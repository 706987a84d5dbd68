"""Chooses the engine and the precision that a bundle ships for, from what was measured. Pure.

Rules:
- What a person asks for is taken, and nothing is measured for it.
- Else int8 in onnxruntime, unless something else is faster by a wide margin: machines, and two measurements on one of
  them, differ by less. int8 is smaller, runs under both engines and is the same to the bit on every processor.
- Float ships only where it also costs little: a file that leaves a bundle its megabyte, and little more memory. It has
  one format, since one engine alone then decides.
- The decision, never a time, is what goes into the bundle; the run keeps it, so that the same command takes it again.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from edge.errors import ConfigError
from export.recipe import Precision, Runtime
from export.speed import FLOAT, Speed

MARGIN = 1.5
"""How many times as fast something has to be, the median of rounds in which all took turns, to ship instead."""
FLOAT_MOST_BYTES = 500_000
FLOAT_MOST_MEMORY_BYTES = 8 * 2**20
"""More than int8 takes."""


@dataclass(frozen=True)
class Choice:
    """What ships."""

    prefer: Runtime
    precision: Precision
    why: str
    """In words, with what was measured."""

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    def again(self) -> str:
        """Return the options that give the same bundle on any machine."""
        return f"--prefer {self.prefer} --precision {self.precision}"


def of_plain(values: Mapping[str, Any], origin: str) -> Choice | None:
    """Return a choice that was kept, None if `values` is none."""
    prefer, precision = values.get("prefer"), values.get("precision")
    if prefer not in ("onnx", "tflite") or precision not in ("int8", "float32"):
        return None
    why = str(values.get("why", ""))
    return Choice(cast(Runtime, prefer), cast(Precision, precision), why if origin in why else f"{why} ({origin})")


def asked(prefer: Runtime | None, precision: Precision | None) -> Choice | None:
    """Return what a person has decided, None if something is left to measure.

    Raises:
        ConfigError: both do not go together.
    """
    if prefer == "tflite" and precision == "float32":
        raise ConfigError(
            "--prefer tflite --precision float32: float networks are written for onnxruntime alone",
            hint="--prefer onnx --precision float32, or --prefer tflite --precision int8",
        )
    if precision == "float32" or (prefer is not None and precision is not None) or prefer == "tflite":
        return Choice(prefer or "onnx", precision or "int8", "as asked")
    return None


def choose(
    speeds: Mapping[str, Speed], threads: int, prefer: Runtime | None = None, precision: Precision | None = None
) -> Choice:
    """Return what ships.

    Args:
        speeds: of int8 under `onnx` and, if it could be written, `tflite`; of the float network under `FLOAT`.
        threads: with which they were measured.
        prefer: an engine that was asked for.
        precision: what was asked for.
    """
    measured = ", ".join(f"{speed.name} {speed.p50_ms:.3f} ms" for speed in speeds.values())
    said = f"measured here with {threads} thread{'' if threads == 1 else 's'}: {measured}"
    engine: Runtime = "onnx"
    if "tflite" in speeds and prefer is None and _ratio(speeds, "onnx", "tflite") >= MARGIN:
        engine = "tflite"
    why = [_reason(speeds, engine)]
    if FLOAT in speeds and precision is None:
        ratio, against = _ratio(speeds, engine, FLOAT), _too_dear(speeds[FLOAT], speeds[engine])
        if ratio >= MARGIN and not against:
            return Choice("onnx", "float32", f"float in onnxruntime is {ratio:.1f} times as fast as int8; {said}")
        if ratio >= MARGIN:
            why.append(f"float would be {ratio:.1f} times as fast, but {against}")
    return Choice(engine, "int8", "; ".join([*why, said]))


def _ratio(speeds: Mapping[str, Speed], slower: str, faster: str) -> float:
    return speeds[slower].relative / speeds[faster].relative


def _reason(speeds: Mapping[str, Speed], engine: Runtime) -> str:
    if engine == "tflite":
        return f"int8 in LiteRT is {_ratio(speeds, 'onnx', 'tflite'):.1f} times as fast as in onnxruntime"
    return f"int8 in onnxruntime: nothing else is {MARGIN:g} times as fast and costs as little"


def _too_dear(floating: Speed, narrow: Speed) -> str:
    if floating.size_bytes > FLOAT_MOST_BYTES:
        return f"its file has {floating.size_bytes:,} bytes (at most {FLOAT_MOST_BYTES:,})"
    if floating.peak_memory_bytes is None or narrow.peak_memory_bytes is None:
        return "its memory could not be measured"
    more = floating.peak_memory_bytes - narrow.peak_memory_bytes
    if more > FLOAT_MOST_MEMORY_BYTES:
        return f"it takes {more / 2**20:.0f} MiB more memory (at most {FLOAT_MOST_MEMORY_BYTES / 2**20:.0f})"
    return ""
