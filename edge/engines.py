"""A loaded bundle that has proved itself: opened in its runtime, golden examples replayed.

Rules:
- The format is chosen by the station's setting, else by what the bundle prefers among what is installed;
  falling back from the preferred one is said in words, never done in silence.
- A bundle whose golden outputs are not met within its tolerance is refused: it is not the model that was audited.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.errors import ConfigError, UpdateError
from edge.ood import Reference
from edge.preprocess import to_model
from edge.runtimes import open_session
from edge.runtimes.interface import Session
from edge.runtimes.tensors import golden_numbers
from edge.wire.base import BundleRef
from edge.wire.manifest import Manifest, ModelFile, RuntimeName

Isolation = Literal["process", "inline"]
START_TIMEOUT_S = 20.0
"""A child that has not loaded its model by then is given up; edge boxes load in well under a second."""


@dataclass(frozen=True)
class EngineSettings:
    """How a station runs its networks."""

    runtime: RuntimeName | Literal["auto"] = "auto"
    isolation: Isolation = "process"
    threads: int = 1
    deadline_s: float = 1.0
    nice: int = 0
    """Added to a child's niceness: above 0 for a candidate that must not slow down what decides."""


@dataclass(frozen=True)
class Engine:
    """A bundle ready to judge. `session` is used by one thread at a time."""

    bundle: Bundle
    spec: ModelFile
    session: Session
    note: str = ""
    """What a person should know about how it runs, for example a fallback of runtime."""
    known: Reference | None = None
    """What known features look like, if the bundle says."""

    @property
    def ref(self) -> BundleRef:
        return self.bundle.ref

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest


def open_engine(bundle: Bundle, settings: EngineSettings) -> Engine:
    """Open a bundle and replay its golden examples.

    Raises:
        ConfigError: no installed runtime takes any of its formats.
        ModelError: the engine refuses the file or fails.
        UpdateError: it does not give the golden outputs.
    """
    names = _candidates(bundle, settings.runtime)
    missing: list[ConfigError] = []
    for name in names:
        try:
            spec, session = _open(bundle, name, settings)
        except ConfigError as error:
            missing.append(error)
            continue
        try:
            replay_golden(bundle, name, spec, session)
            known = bundle.ood_reference(name)
        except BaseException:
            session.close()
            raise
        note = f"{names[0]} is preferred but not installed; running {name}" if missing else ""
        return Engine(bundle, spec, session, note, known)
    raise missing[0]


def replay_golden(bundle: Bundle, runtime: str, spec: ModelFile, session: Session) -> float:
    """Run the golden examples; return the largest difference of any logit, or of any chance where the file gives those.

    Features, heat map and text, where the bundle recorded them, are held against their own tolerances.

    Raises:
        UpdateError: a difference is beyond the bundle's tolerance.
    """
    inputs, expected = bundle.golden(runtime)
    extras = bundle.golden_extras(runtime)
    labels = expected.shape[1]
    worst = 0.0
    for index, (values, logits) in enumerate(zip(inputs, expected, strict=True)):
        got = session.infer(to_model(values[None], spec.input))
        if not np.isfinite(got).all():
            raise UpdateError(f"{bundle.ref.name} {bundle.ref.version}: a golden example gives {got}")
        apart = golden_numbers(got[:labels], spec.output) - golden_numbers(logits, spec.output)
        worst = max(worst, float(np.max(np.abs(apart))))
        if extras is not None:
            _compare_extras(bundle, spec, session, got[labels:], extras[index])
    if worst > spec.golden_tolerance:
        raise UpdateError(
            f"{bundle.ref.name} {bundle.ref.version}: golden outputs differ by {worst:.3g} under "
            f"{session.description}, tolerance {spec.golden_tolerance:.3g}",
            hint="this engine or processor computes differently from the one the thresholds were made for",
        )
    return worst


def _compare_extras(
    bundle: Bundle, spec: ModelFile, session: Session, got: NDArray[np.float32], expected: NDArray[np.float32]
) -> None:
    start = 0
    for name, extra in (("features", spec.features), ("heat map", spec.heatmap), ("text", spec.text)):
        if extra is None:
            continue
        part = slice(start, start := start + math.prod(extra.shape))
        worst = float(np.max(np.abs(got[part] - expected[part])))
        if extra.tolerance is not None and worst > extra.tolerance:
            raise UpdateError(
                f"{bundle.ref.name} {bundle.ref.version}: golden {name} differs by {worst:.3g} under "
                f"{session.description}, tolerance {extra.tolerance:.3g}",
                hint="this engine or processor computes differently from the one the thresholds were made for",
            )


def _candidates(bundle: Bundle, wanted: str) -> list[str]:
    if wanted != "auto":
        bundle.model(wanted)
        return [wanted]
    preferred = bundle.manifest.prefer
    return [preferred, *(name for name in bundle.manifest.models if name != preferred)]


def _open(bundle: Bundle, name: str, settings: EngineSettings) -> tuple[ModelFile, Session]:
    spec, model = bundle.model(name)
    if settings.isolation == "inline":
        return spec, open_session(name, model, spec, threads=settings.threads)
    from edge.runtimes.isolated import IsolatedSession

    session = IsolatedSession(
        name,
        model,
        spec,
        threads=settings.threads,
        deadline_s=settings.deadline_s,
        start_timeout_s=START_TIMEOUT_S,
        nice=settings.nice,
    )
    return spec, session
