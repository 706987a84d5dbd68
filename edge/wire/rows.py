"""The rows that a device keeps in its outbox until the cloud has stored them.

Rules:
- `seq` is given by the device's store, starts at 1 and has no holes within an incarnation.
- A decision holds everything needed to explain and replay it; an outcome names its decision by seq.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from edge.wire.base import BundleRef, Digest, Name, WireModel
from edge.wire.terms import Action, DeferReason, Mode, OutcomeState, Verdict

FEATURES_MEDIA_TYPE = "application/x-npy"
"""Of kept features: NumPy's format, version 1.0, float32 of shape (d,)."""


class InputRef(WireModel):
    """What was looked at or listened to."""

    source: str
    """Kind of source, for example `folder`."""
    name: str
    """The source's own name for it, for example a path."""
    digest: Digest
    """SHA-256 of the raw bytes as they came. A live frame or sound has none: then of the file that is kept of it
    (lossless, so a replay sees the same values), or, where none is kept, of the array's bytes."""
    media_type: str
    """For example `image/jpeg` or `audio/wav`."""
    size_bytes: int
    kept: bool
    """Whether the device keeps the raw bytes, so that people can see them and replay works."""
    features: Digest | None = None
    """Of a station that keeps only the network's own features: SHA-256 of what is kept of them, see
    `FEATURES_MEDIA_TYPE`. They stay on the device."""


class Peak(WireModel):
    """A place that speaks for a defect."""

    x: float = Field(ge=0, le=1)
    """From the left of the picture as it came (or as it was cut), as a share of its width."""
    y: float = Field(ge=0, le=1)
    """From its top, as a share of its height."""
    value: float
    """What the network's heat map says there; more is more suspicious."""


class DecisionRow(WireModel):
    """One window decided."""

    kind: Literal["decision"] = "decision"
    seq: int = Field(ge=1)
    station: Name
    at_ms: int
    """Wall clock of the device when the decision was made."""
    boot_id: str
    monotonic_ms: int
    """Monotonic clock of the device: orders the decisions of one boot whatever the wall clock did."""
    mode: Mode
    verdict: Verdict
    action: Action
    reason: DeferReason | None = None
    """Why it was deferred; also `audit` on a confident decision that is drawn for review."""
    detail: str | None = None
    """The reason in words, for example the error's message."""
    audit_probability: float = 0.0
    """Probability with which a decision like this one is drawn for audit."""
    label: str | None = None
    confidence: float | None = None
    """Calibrated probability of `label`, or of the verdict's side for inspection."""
    scores: dict[str, float] = Field(default_factory=dict)
    """Calibrated probability per label."""
    bundle: BundleRef | None = None
    runtime: str | None = None
    policy: dict[str, float] = Field(default_factory=dict)
    """The thresholds in force, overrides included."""
    input: InputRef
    metrics: dict[str, float] = Field(default_factory=dict)
    """Input metrics of the gate, for example brightness and sharpness; `speech_share` of a segment of sound; `ood` if
    the bundle judges strangeness."""
    where: list[Peak] | None = None
    """Where the network looked, at most three places, strongest first; None for a clear pass, or if it cannot say."""
    text: str | None = None
    """What a recogniser of speech understood; of a deferral, its suggestion. None of other bundles, and where those who
    are heard have not agreed."""
    forgotten: bool | None = None
    """True once what was kept of its input, and its text, were erased on request."""
    latency_ms: dict[str, float] = Field(default_factory=dict)
    """Milliseconds per step of the pipeline, and `total`. `hang_over` is no step and not within `total`: how long after
    the last active frame a segment of sound was known to be over, so from the end of speech it took both together."""


class OutcomeRow(WireModel):
    """What became of an action."""

    kind: Literal["outcome"] = "outcome"
    seq: int = Field(ge=1)
    decision_seq: int = Field(ge=1)
    at_ms: int
    state: OutcomeState
    actuator: str
    detail: str | None = None
    latency_ms: float | None = None


ANSWERED_EVENT = "decision_answered"
"""Event of a person's answer given at the device; its data: `decision_seq`, `answer` (pass, divert, accept,
cant_tell), `reviewer`, and `label` where the person named what was said."""


SERVER_ANSWERED_EVENT = "server_answered"
"""Event of a prediction server's answer to a decision that was deferred, or whose label is asked about; its data:
`decision_seq`, `verdict`, `label`, `confidence`, `text` (a recognised sentence, or None), `bundle` (of the server),
`digest` (SHA-256 of what was sent), `latency_ms` (`total` from the decision to the answer, of it `wait` in the device's
queue and `server` for the server's decision, of that `infer` for its network; `since_speech` from the end of speech,
where that is known), `review` (`kept`: a person is asked all the same; `closed`: the server accepted, and that is
enough here)."""


SHADOW_DISAGREED_EVENT = "shadow_disagreed"
"""Event of a candidate in the shadow that would have decided otherwise; of its data, `decision_seq`, `input` (digest of
what is kept of it, or None) and `texts` (what both understood, if they hear) are what may be erased."""


FORGOTTEN_EVENT = "inputs_forgotten"
"""Event of what was erased at the device on request, in one transaction with the erasure: its proof, and its request to
the control plane to erase the same. Its data: `count` (kept inputs erased), `digests` (of them), `seqs` (rows whose
text or input was to be erased, also such as the device no longer has), `before_ms` (everything before that moment of
the device's clock, or None), `station` (only of this one, or None), `copies` (damaged copies of the record that were
removed), `why`. A request over many inputs is several events; `before_ms` stands in the last of them."""


class EventRow(WireModel):
    """Something changed or went wrong, in the past tense: `bundle_promoted`, `drift_raised`."""

    kind: Literal["event"] = "event"
    seq: int = Field(ge=1)
    at_ms: int
    boot_id: str
    name: Name
    severity: Literal["info", "warning", "alarm"] = "info"
    station: Name | None = None
    model: Name | None = None
    detail: str = ""
    data: dict[str, Any] = Field(default_factory=dict)


class Histogram(WireModel):
    """Counts between fixed edges; two with the same edges add up bin by bin.

    `counts` has one more entry than `edges`: below the first edge, between each two, and from the last on.
    """

    edges: list[float] = Field(min_length=1)
    counts: list[int]

    def model_post_init(self, _context: Any) -> None:
        if len(self.counts) != len(self.edges) + 1:
            raise ValueError(f"counts: expected {len(self.edges) + 1} entries, got {len(self.counts)}")
        if list(self.edges) != sorted(self.edges):
            raise ValueError("edges: expected ascending order")

    def __add__(self, other: "Histogram") -> "Histogram":
        if self.edges != other.edges:
            raise ValueError("histograms with different edges cannot be added")
        return Histogram(edges=self.edges, counts=[a + b for a, b in zip(self.counts, other.counts, strict=True)])

    @property
    def total(self) -> int:
        return sum(self.counts)


class TelemetryRow(WireModel):
    """One window of time at one station; every part can be added to that of another window."""

    kind: Literal["telemetry"] = "telemetry"
    seq: int = Field(ge=1)
    station: Name
    model: Name
    bundle: BundleRef | None = None
    started_at_ms: int
    ended_at_ms: int
    counts: dict[str, int] = Field(default_factory=dict)
    """`decisions`, `verdict.pass`, `reason.unsure`, `deadline_misses`, `label.scratch`, …; of a station that hears
    `heard.ms`, how long it has listened, and `heard.speech_ms`, how much of that was speech, whether it came into a
    segment or not."""
    histograms: dict[str, Histogram] = Field(default_factory=dict)
    """`latency_ms.total`, `latency_ms.infer`, `confidence`, and each input metric of the gate; of a station that hears
    `heard.level_dbfs`, `heard.speech_share` and `heard.clipping`, one value for each second that it has listened."""


Row = Annotated[DecisionRow | OutcomeRow | EventRow | TelemetryRow, Field(discriminator="kind")]
ROWS: tuple[type[WireModel], ...] = (DecisionRow, OutcomeRow, EventRow, TelemetryRow)
_ADAPTER: TypeAdapter[DecisionRow | OutcomeRow | EventRow | TelemetryRow] = TypeAdapter(Row)


def parse_row(payload: bytes | str) -> DecisionRow | OutcomeRow | EventRow | TelemetryRow:
    """Return the row in a JSON text.

    Raises:
        pydantic.ValidationError: it is not one.
    """
    return _ADAPTER.validate_json(payload)


LATENCY_EDGES_MS: list[float] = [round(0.1 * 2 ** (i / 4), 6) for i in range(68)]
"""Edges for latencies: 0.1 ms to about 11 s, four to an octave, so a percentile is known within 19 %."""

UNIT_EDGES: list[float] = [round(i / 20, 2) for i in range(1, 20)]
"""Edges for shares and confidences between 0 and 1."""

HEARD_EDGES: dict[str, list[float]] = {
    "level_dbfs": [float(level) for level in range(-100, 0, 5)],
    "speech_share": UNIT_EDGES,
    "clipping": [0.0001, 0.001, 0.01, 0.1],
}
"""Edges for what each second sounded like: dB of full scale, and shares of the second."""
