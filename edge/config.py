"""The device's configuration: one TOML file, checked whole before anything starts.

Rules:
- Every key has a unit in its name, a bound, and a default that suits an inspection box.
- All mistakes are reported at once, each with its line and, for an unknown key, the nearest known one; those of sources
  and actuators too (`edge.configcheck`).
- Relative paths are relative to the configuration file.
"""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge.actuators import CONFIRM_LATER
from edge.addresses import is_plain
from edge.configcheck import driver_mistakes, port_mistakes
from edge.errors import ConfigError
from edge.masks import Mask, Region
from edge.mistakes import mistakes_in, told
from edge.osrules import WINDOW_PATTERN
from edge.privacy import agreed_by_default
from edge.stationrules import LineRules
from edge.voice.settings import usual_segmenter
from edge.wear import DROP_FIRST, Droppable
from edge.wire.base import Name
from edge.wire.manifest import OnDisagreement, RuntimeName
from edge.wire.terms import DeferReason, Mode

_ALWAYS_CUT, _CUT_IF_ASKED = "microphone", "audio_file"


class Section(BaseModel):
    """A table of the file: frozen, and unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DeviceSection(Section):
    """Who and where this device is."""

    name: Name
    profile: str = Field(default="generic", max_length=64)
    site: str = Field(default="default", max_length=64)
    data: Path = Path("data")
    """Folder for the store, bundles and identity."""
    cores: int | tuple[int, ...] | None = None
    """How many cores the daemon and all its children may use, or which, by their numbers; None for all."""
    drain_s: float = Field(default=20.0, ge=0, le=3600)
    """Longest time that a daemon which is told to end still decides what it had taken in before; with the 20 seconds
    that ending itself may take it stays below `TimeoutStopSec` of the systemd unit."""

    @field_validator("cores", mode="before")
    @classmethod
    def _some_each_once(cls, cores: Any) -> Any:
        if type(cores) is int and cores >= 1:
            return cores
        named = isinstance(cores, list) and cores and all(type(core) is int and core >= 0 for core in cores)
        if not named or len(set(cores)) != len(cores):
            raise ValueError("expected how many cores, or a list of their numbers, each once, such as [2, 3]")
        return cores


class CloudSection(Section):
    """The control plane; without this table the device works alone."""

    url: str
    """Address of the control plane for devices, for example `https://192.0.2.10:8442`."""
    claim: str | None = None
    """One-time token of enrolment; not needed once the device is enrolled. It carries the digest of the control plane's
    CA, so nothing else is needed to believe it. Another one than before enrols the device again."""
    root: Path | None = None
    """TUF root metadata that bundles are trusted by; without it no new bundle is taken."""
    ca: Path | None = None
    """What to verify the control plane by (PEM), instead of what the claim says or the device's system trusts."""
    plain_text: bool = False
    """Whether control plane and broker on other machines may be spoken to without TLS."""

    @model_validator(mode="after")
    def _encrypted(self) -> "CloudSection":
        if is_plain(self.url) and not self.plain_text:
            raise ValueError(f"{self.url} is plain text to another machine: expected https, or plain_text = true")
        return self


class StoreSection(Section):
    """The decision log."""

    durability: Literal["power", "process"] = "power"
    """`power`: on disk before the actuator moves. `process`: survives a kill, not a power cut; faster."""
    max_rows: int = Field(default=1_000_000, ge=1_000)
    max_input_bytes: int = Field(default=2 * 2**30, ge=2**20)
    max_input_age_days: float | None = Field(default=None, gt=0)
    """Pictures and sounds are dropped after so long, sent or not."""
    max_row_age_days: float | None = Field(default=None, gt=0)
    """Rows are dropped after so long once the control plane has stored them; others stay, whatever their age."""
    max_written_bytes_per_day: int | None = Field(default=None, ge=10 * 2**20)
    """What the daemon may write to its disk in a day of UTC before it writes less: flash wears out. Never a decision
    is left out, so ten megabytes are the least that makes sense."""
    drop_first: tuple[Droppable, ...] = DROP_FIRST
    """What is left out first when the day's budget nears its end (what is not named is always written), and what goes
    first of what only this device has when the record or the disk is full (what is not named goes last)."""
    max_bytes: int = Field(default=4 * 2**30, ge=16 * 2**20)
    """The record with all that is in it, and its damaged predecessors; only unsent decisions, outcomes and events may
    go beyond. Twice what `max_input_bytes` keeps leaves room for rows. The log beside the record takes 4 MB more."""

    @model_validator(mode="after")
    def _named_once(self) -> "StoreSection":
        if len(set(self.drop_first)) != len(self.drop_first):
            raise ValueError("drop_first names something twice")
        return self


class LinkSection(Section):
    """How often the device speaks."""

    report_interval_s: float = Field(default=30.0, ge=0.5, le=3600)
    telemetry_window_s: float = Field(default=60.0, ge=1, le=3600)
    reconnect_max_s: float = Field(default=60.0, ge=1, le=3600)
    """Longest pause between two tries to reach broker or control plane: a minute spreads a thousand devices that
    come back at once; a few boxes on one cable may try every second."""


class LogSection(Section):
    """What the daemon writes to standard error."""

    format: Literal["people", "json", "none"] = "people"
    """Events as they are recorded: for people, as JSON lines for a collector, or not at all."""


class LocalSection(Section):
    """The page at the device, `/healthz` and `/metrics`; without this table there is none."""

    listen: str = Field(default="127.0.0.1:8480", pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}$")
    """Host and port; anything but loopback needs a token."""
    token: str | None = Field(default=None, min_length=16)
    """What a browser or scraper must show; at least 16 characters."""

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @model_validator(mode="after")
    def _guarded(self) -> "LocalSection":
        if self.token is None and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(f"listen on {self.host} needs a token of at least 16 characters")
        return self


class ProbationSection(Section):
    """What a new bundle must survive before it counts as good."""

    windows: int = Field(default=50, ge=1)
    seconds: float = Field(default=10.0, ge=0)
    max_deadline_misses: int = Field(default=3, ge=0)
    max_memory_bytes: int = Field(default=512 * 2**20, ge=2**20)
    """Of the inference process, also after the probation; for `inline` stations what the daemon has grown by since the
    bundle decides."""


class OsSection(Section):
    """Updates of the operating system, on devices that have slots for two."""

    slots: Literal["none", "simulated", "systemd-boot"] = "none"
    """`systemd-boot`: as `lineside-flash` writes cards. `simulated`: in a folder of `data`, for trying updates out.
    `none`: updates are refused."""
    tries: int = Field(default=3, ge=1, le=10)
    """Starts that a new system has until it is confirmed; then the one before it comes back."""
    probation_s: float = Field(default=60.0, ge=0, le=86_400)
    """How long every station must be well without a break before a new system counts as good."""
    deadline_s: float = Field(default=900.0, ge=1, le=86_400)
    """A new system that is not confirmed so long after its start is left."""
    idle_s: float = Field(default=30.0, ge=0, le=86_400)
    """Nothing was decided for so long: then the device may restart into a new system."""
    window: str | None = Field(default=None, pattern=WINDOW_PATTERN)
    """Hours of the day by the device's own clock in which it may, such as `02:00-04:00`; without it, any."""
    wait_max_s: float = Field(default=86_400.0, ge=0, le=31 * 86_400)
    """Longest wait for quiet and hours; then it restarts between two windows all the same."""

    @model_validator(mode="after")
    def _deadline_after_probation(self) -> "OsSection":
        if self.deadline_s <= self.probation_s:
            raise ValueError(f"deadline_s {self.deadline_s:g} must be above probation_s {self.probation_s:g}")
        return self


class AskSection(Section):
    """The prediction server that is asked about what the station defers; without this table none is."""

    url: str = Field(pattern=r"^https?://[^/?#\s]+/?$", max_length=300)
    """Address of the server, for example `http://127.0.0.1:8470`."""
    token_file: Path | None = None
    """File with the token that the server asks for."""
    reasons: tuple[DeferReason, ...] = Field(default=("unsure", "out_of_distribution"), min_length=1)
    """Which deferrals are asked about."""
    labels: tuple[str, ...] = Field(default=(), max_length=200)
    """Labels that are asked about also when the device is sure: what a keyword spotter knows for `unknown` is speech
    that a recogniser may understand."""
    timeout_ms: float = Field(default=2000.0, ge=10, le=60_000)
    """For one question with all its tries: who has spoken waits for no longer."""
    max_waiting: int = Field(default=16, ge=1, le=1000)
    """Deferrals that may wait to be asked about; beyond, the oldest is not asked about any more. Sixteen segments of
    ten seconds are 10 MB."""
    review: Literal["keep", "close"] = "keep"
    """Whether a person is asked all the same once the server has accepted."""


class StationSection(Section):
    """One place where decisions are made."""

    model: Name
    bundle: Path | None = None
    """Bundle to begin with, before the control plane has given one."""
    mode: Mode = "partial"
    runtime: RuntimeName | Literal["auto"] = "auto"
    isolation: Literal["process", "inline"] = "process"
    """`process`: a crash, a hang or a leak of the network is contained in a child. `inline`: it runs in the daemon,
    which it can end, stop or fill; then only starts of the daemon and its growth tell on it, and a hang is ended by
    systemd's watchdog only."""
    threads: int = Field(default=1, ge=1, le=8)
    deadline_ms: float = Field(default=1000.0, gt=0, le=600_000)
    load_s: float = Field(default=20.0, ge=1, le=600)
    """A network that its child has not loaded by then is given up: a bundle that takes longer is refused."""
    audit_share: float = Field(default=0.02, ge=0, le=1)
    defer_budget_per_h: int | None = Field(default=None, ge=0)
    keep: Literal["none", "features", "deferred", "all"] = "deferred"
    """Which inputs are kept: of deferred and audited decisions, of all, none, or of all the network's features only."""
    shadow_cpu_share: float = Field(default=0.25, ge=0, le=1)
    """Share of one core for a staged candidate on the same windows; 0 runs none."""
    on_disagreement: OnDisagreement | None = None
    """What becomes of a sure decision that such a candidate contradicts; unsaid, the bundle's policy says."""
    stop_after_rejects: int | None = Field(default=None, ge=2, le=1000)
    """So many rejects in a row stop the line until a person acknowledges."""
    reference_every_s: float | None = Field(default=None, ge=1, le=7 * 86_400)
    """A reference part, known to be bad, must be rejected at least this often, or there is an alarm."""
    reference_name: str | None = Field(default=None, min_length=1, max_length=200)
    """Pattern of the reference part's name at its source; without it, any reject counts as one."""
    mask: list[Mask] = Field(default_factory=list, max_length=64)
    """Parts of every picture that nobody may see: gone before the network, the record or the page see it."""
    sound_consent: bool | None = None
    """Whether those who are heard have agreed that sound is kept, sent and shown; without it none of it is. If it is
    not said: yes for recorded files (`audio_file`, `folder`, `replay`), no for who speaks into a microphone or sends
    a sound (`http`)."""
    ask: AskSection | None = None
    """Who is asked about what is deferred."""
    source: dict[str, Any]
    actuator: dict[str, Any] = Field(default_factory=lambda: {"kind": "log", "path": "actions.jsonl"})
    keep_days: float | None = Field(default=None, gt=0, le=36_500)
    """How long what is kept stays on this device, sent or not; it is overwritten then. Without it, as long as [store]
    says. What the control plane has stays there until `forget`."""
    crop: Region | None = None
    """The only part of every picture that anybody may see, in shares of the picture as it came; what lies outside is
    cut off before the network, the record or the page see it."""

    @property
    def confirms_later(self) -> bool:
        """Whether the actuator takes its actions from the record."""
        return self.actuator.get("kind") in CONFIRM_LATER

    @property
    def rules(self) -> LineRules:
        """What the station asks for without a model."""
        return LineRules(self.stop_after_rejects, self.reference_every_s, self.reference_name)

    @property
    def sound_agreed(self) -> bool:
        """Whether sound may be kept, sent and shown."""
        if self.sound_consent is not None:
            return self.sound_consent
        return agreed_by_default(str(self.source.get("kind")))

    @model_validator(mode="after")
    def _reference_is_asked_for(self) -> "StationSection":
        if self.reference_name is not None and self.reference_every_s is None:
            raise ValueError("reference_name needs reference_every_s")
        return self


class Config(Section):
    """The whole file."""

    device: DeviceSection
    cloud: CloudSection | None = None
    store: StoreSection = StoreSection()
    link: LinkSection = LinkSection()
    log: LogSection = LogSection()
    local: LocalSection | None = None
    probation: ProbationSection = ProbationSection()
    os: OsSection = OsSection()
    station: dict[Name, StationSection] = Field(min_length=1)

    @model_validator(mode="after")
    def _threads_within_the_cores(self) -> "Config":
        cores = self.device.cores
        most = len(cores) if isinstance(cores, tuple) else cores
        over = [name for name, section in self.station.items() if most is not None and section.threads > most]
        if over:
            raise ValueError(
                f"station {', '.join(over)}: more threads than device.cores allows, expected at most {most}"
            )
        return self

    @model_validator(mode="after")
    def _one_bundle_a_model(self) -> "Config":
        first: dict[str, Path] = {}
        for name, section in self.station.items():
            if section.bundle is None:
                continue
            if first.setdefault(section.model, section.bundle) != section.bundle:
                other = first[section.model]
                raise ValueError(
                    f"station {name}: stations of one model share its bundle, got {section.bundle} and {other}"
                )
        return self


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: it cannot be read, is not TOML, or holds mistakes; the message lists all of them.
    """
    try:
        text = path.read_text()
        document = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}", hint="pass --config FILE") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    mistakes = [*driver_mistakes(document.get("station"), document.get("device")), *port_mistakes(document)]
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        mistakes += mistakes_in(Config, error)
    if mistakes:
        raise ConfigError(f"{path}: {told(text, mistakes)}")
    return _absolute(config, path.resolve().parent)


def _absolute(config: Config, base: Path) -> Config:
    def fix(path: Path | None) -> Path | None:
        return path if path is None else base / path

    stations = {
        name: station.model_copy(
            update={
                "bundle": fix(station.bundle),
                "source": _with_segmenter(_absolute_path(station.source, base), config.device.profile),
                "actuator": _absolute_path(station.actuator, base),
                "ask": station.ask and station.ask.model_copy(update={"token_file": fix(station.ask.token_file)}),
            }
        )
        for name, station in config.station.items()
    }
    device = config.device.model_copy(update={"data": fix(config.device.data)})
    cloud = config.cloud
    if cloud is not None:
        cloud = cloud.model_copy(update={"root": fix(cloud.root), "ca": fix(cloud.ca)})
    return config.model_copy(update={"device": device, "cloud": cloud, "station": stations})


def _with_segmenter(source: dict[str, Any], profile: str) -> dict[str, Any]:
    """Return a source's settings with the kind of segmenter that suits the profile, if it cuts and names none."""
    segments = source.get("segments")
    if source.get("kind") == _ALWAYS_CUT and segments is None:
        segments = {}
    if source.get("kind") not in (_ALWAYS_CUT, _CUT_IF_ASKED) or segments is None:
        return source
    return {**source, "segments": {"kind": usual_segmenter(profile), **segments}}


def _absolute_path(settings: dict[str, Any], base: Path) -> dict[str, Any]:
    return {
        key: str(base / value) if key == "path" or key.endswith("_file") else value for key, value in settings.items()
    }
