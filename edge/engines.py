"""A loaded bundle that has proved itself: opened in its runtime, golden examples replayed.

Rules:
- The format is chosen by the station's setting, else by what the bundle prefers among what is installed;
  falling back from the preferred one is said in words, never done in silence.
- A format whose golden outputs are not met within its tolerance is refused: it is not the model that was audited.
  Where the station leaves the choice open, another format of the bundle may meet its own; that is said in words, too.
- Proving may be given a limit for all of it together, and an input on which the bundle has failed before.
"""

import math
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.calibrate import calibrated
from edge.errors import ConfigError, DeadlineError, ModelError, UpdateError
from edge.ood import Reference
from edge.preprocess import to_model
from edge.runtimes import open_session
from edge.runtimes.interface import Answering, Session, Timed
from edge.runtimes.tensors import golden_numbers
from edge.wire.base import BundleRef
from edge.wire.manifest import Manifest, ModelFile, RuntimeName

Isolation = Literal["process", "inline"]
START_TIMEOUT_S = 20.0
"""Limit of loading unless a station says another; edge boxes load in well under a second."""
SLOW_TO_LOAD = ("whisper", "pocketsphinx")
"""Runtimes that may take seconds to load: from cold they have the station's `load_s`, whatever the limit."""


@dataclass(frozen=True)
class EngineSettings:
    """How a station runs its networks."""

    runtime: RuntimeName | Literal["auto"] = "auto"
    isolation: Isolation = "process"
    threads: int = 1
    deadline_s: float = 1.0
    load_s: float = START_TIMEOUT_S
    """A child that has not loaded its model by then is given up."""
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
    opened_in_s: float = 0.0
    """How long opening and proving it took."""

    @property
    def ref(self) -> BundleRef:
        return self.bundle.ref

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest


def open_engine(
    bundle: Bundle,
    settings: EngineSettings,
    *,
    within_s: float | None = None,
    again: NDArray[np.generic] | None = None,
) -> Engine:
    """Open a bundle and replay its golden examples.

    Args:
        bundle: what to open.
        settings: how this station runs its networks.
        within_s: the longest that opening and proving may take together, in a child; the settings' `load_s` for loading
            and the deadline for each inference if None.
        again: an input on which it has failed, as its network takes it: it is to be answered, too.

    Raises:
        ConfigError: no installed runtime takes any of its formats.
        ModelError: the engine refuses the file, fails, or takes too long.
        UpdateError: none of its formats gives its golden outputs.
    """
    names, failed = _candidates(bundle, settings.runtime), list[ConfigError | UpdateError]()
    limit = _Limit(_limit_s(names, within_s, settings, proved_before=again is not None), settings)
    for name in names:
        try:
            spec, session = _proved(bundle, name, settings, limit, again)
        except (ConfigError, UpdateError) as error:
            failed.append(error)
            continue
        note = f"{bundle.manifest.prefer} is preferred but {_why(failed[0])}; running {name}" if failed else ""
        return Engine(bundle, spec, session, note, bundle.ood_reference(name), limit.taken_s)
    raise next((error for error in failed if isinstance(error, UpdateError)), failed[0])


def replay_golden(bundle: Bundle, runtime: str, spec: ModelFile, session: Answering) -> float:
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


def _proved(
    bundle: Bundle, name: str, settings: EngineSettings, limit: "_Limit", again: NDArray[np.generic] | None
) -> tuple[ModelFile, Session]:
    spec, session = _open(bundle, name, settings, limit)
    try:
        limited = _Limited(session, limit)
        replay_golden(bundle, name, spec, limited)
        if again is not None:
            _answer(bundle, limited, again)
        limited.lift()
        bundle.ood_reference(name)
    except BaseException:
        session.close()
        raise
    return spec, session


def _why(error: ConfigError | UpdateError) -> str:
    return "not installed" if isinstance(error, ConfigError) else f"refused here ({error})"


def _limit_s(
    runtimes: list[str], within_s: float | None, settings: EngineSettings, *, proved_before: bool
) -> float | None:
    """Return how long proving may take; what loads slowly has more time, unless it is known to be quick here."""
    slow = not proved_before and any(name in SLOW_TO_LOAD for name in runtimes)
    return settings.load_s if within_s is not None and slow else within_s


class _Limit:
    """How long opening and proving may take together, counted from now."""

    def __init__(self, within_s: float | None, settings: EngineSettings) -> None:
        self._started_s = time.monotonic()
        self._within_s, self._settings = within_s, settings
        self.deadline_s = settings.deadline_s

    @property
    def taken_s(self) -> float:
        return time.monotonic() - self._started_s

    @property
    def load_s(self) -> float:
        return self._settings.load_s if self._within_s is None else max(0.0, self._within_s - self.taken_s)

    def inference_s(self) -> float:
        """Return how long the next inference may take.

        Raises:
            DeadlineError: there is no time left.
        """
        if self._within_s is None:
            return self.deadline_s
        left_s = self._within_s - self.taken_s
        if left_s <= 0:
            raise DeadlineError(f"deadline: it was not opened and proved within {self._within_s:g} s")
        return min(self.deadline_s, left_s)


class _Limited:
    """A session whose inferences have no more time than a limit leaves; one in this process cannot be limited."""

    def __init__(self, session: Session, limit: _Limit) -> None:
        self._session, self._limit = session, limit
        self.description = session.description

    def infer(self, tensor: NDArray[np.generic]) -> NDArray[np.float32]:
        self._allow(self._limit.inference_s())
        return self._session.infer(tensor)

    def lift(self) -> None:
        """Give it its own deadline."""
        self._allow(self._limit.deadline_s)

    def _allow(self, deadline_s: float) -> None:
        if isinstance(self._session, Timed):
            self._session.deadline_s = deadline_s


def _answer(bundle: Bundle, session: "_Limited", again: NDArray[np.generic]) -> None:
    """Have the network answer an input on which it has failed.

    Raises:
        ModelError: it fails on it again.
    """
    try:
        answer = session.infer(again)
        calibrated(answer[: len(bundle.manifest.labels)].tolist(), bundle.manifest.calibration)
    except ModelError as error:
        raise ModelError(f"opened anew, it fails on the same input again: {error}") from error


def _compare_extras(
    bundle: Bundle, spec: ModelFile, session: Answering, got: NDArray[np.float32], expected: NDArray[np.float32]
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


def _open(bundle: Bundle, name: str, settings: EngineSettings, limit: "_Limit") -> tuple[ModelFile, Session]:
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
        start_timeout_s=limit.load_s,
        nice=settings.nice,
    )
    return spec, session
