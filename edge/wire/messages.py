"""The five messages that travel by MQTT.

Rules:
- `desired` and `reported` are whole documents, never differences: repeating one changes nothing.
- A device ignores a `desired` whose `config_version` is lower than one it has applied.
- `bundles` is keyed by model name, `stations` by the station's name in the device's own config.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from edge.wire.base import BundleRef, Digest, Name, WireModel
from edge.wire.rows import Row
from edge.wire.terms import Mode, SlotState


class DesiredBundles(WireModel):
    """Which bundles of one model a device should hold, per slot."""

    active: BundleRef | None = None
    """The bundle that decides."""
    candidate: BundleRef | None = None
    """A bundle to stage (and, where the station asks for it, to run in the shadow)."""


class DesiredStation(WireModel):
    """What the cloud may change at one station; None leaves the device's own setting."""

    mode: Mode | None = None
    policy: dict[str, float] = Field(default_factory=dict)
    """Overrides of numbers in the bundle's policy, by field name."""


class Desired(WireModel):
    """What the cloud wants a device to be; retained."""

    kind: Literal["desired"] = "desired"
    device: Name
    config_version: int = Field(ge=0)
    issued_at_ms: int
    bundles: dict[Name, DesiredBundles] = Field(default_factory=dict)
    stations: dict[Name, DesiredStation] = Field(default_factory=dict)
    rollout: str | None = None
    """The rollout that asks for this, if one does."""


class SlotReport(WireModel):
    """One bundle on the device and what has become of it."""

    bundle: BundleRef
    state: SlotState
    since_ms: int
    reason: str | None = None
    """Why it is bad or was refused, in words for a person."""


class StationReport(WireModel):
    """How one station does."""

    model: Name
    mode: Mode
    serving: BundleRef | None = None
    """The bundle that decides now; None when no bundle could be loaded."""
    runtime: str | None = None
    decisions: int = 0
    """Decisions since the daemon started."""
    last_decision_at_ms: int | None = None
    problem: str | None = None
    """What keeps the station from deciding, if anything."""


class Refusal(WireModel):
    """A bundle that the device would not take, and why."""

    bundle: BundleRef
    at_ms: int
    reason: str


class OsReport(WireModel):
    """Which operating system runs, of a device that has slots for two; what became of others is in `slots`."""

    model: Name
    """Under which name its systems are published and stand in `slots`."""
    serving: BundleRef
    """The one that runs now."""
    slot: Literal["a", "b"]
    waits_for: str | None = None
    """What keeps it from starting another one that is in place, in words for a person."""
    problem: str | None = None
    """What went wrong the last time, if anything."""


class Health(WireModel):
    """The device's own state; sizes in bytes, memory of the daemon and its children together."""

    uptime_s: float
    memory_bytes: int
    disk_free_bytes: int
    outbox_rows: int
    outbox_bytes: int
    oldest_unsent_ms: int | None = None
    uploads_waiting: int = 0
    cpu_percent: float | None = None
    temperature_c: float | None = None
    extra: dict[str, Any] = Field(default_factory=dict)


class Reported(WireModel):
    """A device's full state; retained, sent on every change and at a steady interval."""

    kind: Literal["reported"] = "reported"
    device: Name
    incarnation: str
    """Identity of the device's store; a new one begins a new sequence of rows."""
    boot_id: str
    """Identity of this start of the daemon."""
    sent_at_ms: int
    config_version: int
    """The highest `desired` that was applied; 0 for none."""
    software: str
    profile: str
    site: str
    slots: dict[Name, list[SlotReport]] = Field(default_factory=dict)
    stations: dict[Name, StationReport] = Field(default_factory=dict)
    refusals: list[Refusal] = Field(default_factory=list)
    os: OsReport | None = None
    """None for a device whose operating system is not ours to replace."""
    health: Health
    interval_s: float
    """How often this message is sent at least: silence for three of these is `stale`."""


class Presence(WireModel):
    """Online, or the last will; retained. A will of an earlier boot changes nothing."""

    kind: Literal["presence"] = "presence"
    device: Name
    boot_id: str
    online: bool
    at_ms: int


class Up(WireModel):
    """A batch of outbox rows in order of their sequence numbers."""

    kind: Literal["up"] = "up"
    device: Name
    incarnation: str
    rows: list[Row] = Field(min_length=1, max_length=1000)


class Ack(WireModel):
    """The cloud has stored every row of this incarnation up to and including `stored_through`."""

    kind: Literal["ack"] = "ack"
    device: Name
    incarnation: str
    stored_through: int = Field(ge=0)
    wanted_inputs: list[Digest] = Field(default_factory=list)
    """Inputs that the cloud would like to be sent over HTTP."""


Message = Annotated[Desired | Reported | Presence | Up | Ack, Field(discriminator="kind")]
MESSAGES: tuple[type[WireModel], ...] = (Desired, Reported, Presence, Up, Ack)
_ADAPTER: TypeAdapter[Desired | Reported | Presence | Up | Ack] = TypeAdapter(Message)


def parse_message(payload: bytes) -> Desired | Reported | Presence | Up | Ack:
    """Return the message in a payload.

    Raises:
        pydantic.ValidationError: it is not one; the error says which field and why.
    """
    return _ADAPTER.validate_json(payload)
