"""The values that flow through the pipeline, each frozen, each the result of one step."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from edge.wire.manifest import OnDisagreement
from edge.wire.rows import DecisionRow
from edge.wire.terms import Action, DeferReason, Mode, Verdict


@dataclass(frozen=True, slots=True)
class Window:
    """One thing to decide on, as its source gave it.

    `data` is a picture (height, width, 3) uint8 in BGR order, or sound (samples,) float32 in −1…1, or None
    when `problem` says why there is none. `raw` are the bytes as they came (encoded file), or None for live frames.
    """

    source: str
    name: str
    key: str
    """Identity of this input at its source: a window with a key that was decided is not read again."""
    media_type: str
    data: NDArray[Any] | None
    raw: bytes | None = None
    sample_rate_hz: int | None = None
    problem: str | None = None
    decode_ms: float = 0.0
    waited_ms: float = 0.0
    """How long a live input waited before it was read: counts towards the deadline."""
    hang_over_ms: float = 0.0
    """Of a segment: from the end of its last active frame to the moment at which it was known to be over."""
    speech_share: float | None = None
    """Of a segment: share of it in which its segmenter heard something; None of whole files and pictures."""
    live: bool = False
    """Whether it can never come again, so that nobody will ask for its key."""
    encode: Callable[[], bytes] | None = None
    """Makes a file of `media_type` of a live frame or sound, without loss; called only when the input is kept."""
    answer: Callable[[DecisionRow | None], None] | None = None
    """Takes the recorded decision to whoever waits for it (None: it could not be recorded). Must not wait or fail."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A window with the gate's measurements; `problem` is why it must not be judged, or None."""

    window: Window
    metrics: dict[str, float]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the rules made of one window."""

    verdict: Verdict
    action: Action
    reason: DeferReason | None
    detail: str | None
    label: str | None
    confidence: float | None
    scores: dict[str, float]
    audit_probability: float
    policy: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StationSettings:
    """What the station's config and the cloud say about deciding; changes take effect at the next window."""

    station: str
    mode: Mode = "partial"
    audit_share: float = 0.0
    deadline_ms: float = 1000.0
    defer_budget_per_h: int | None = None
    keep: Literal["none", "features", "deferred", "all"] = "deferred"
    """Which inputs are kept: of deferred and audited decisions, of all, none, or of all the network's features only."""
    policy_overrides: dict[str, float] = field(default_factory=dict)
    acknowledged: str | None = None
    """The stop of the line that a person has acknowledged last, see `edge.linewatch`."""
    on_disagreement: OnDisagreement | None = None
    """What becomes of a sure decision that a candidate in the shadow contradicts; None: as the bundle's policy says."""
    sound_consent: bool = False
    """Whether those who are heard have agreed that sound is kept and sent."""
