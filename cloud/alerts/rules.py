"""What is watched and who is told: one TOML file of rules, channels and retraining, all its mistakes said at once.

Rules:
- Unknown keys are errors. A channel that is named and not there, a name given twice, limits that cross: errors too.
- `cloud/watch.toml` is what holds without a file of one's own, and the reference.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from cloud.errors import ConfigError

BUILT_IN = Path(__file__).parents[1] / "watch.toml"
MAX_RULES = 200
Severity = Literal["info", "warning", "alarm"]
Plain = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Rule(_Entry):
    name: Plain
    severity: Severity = "warning"
    to: list[Plain] = []
    """Channels; the console shows all anyway."""
    for_s: float = Field(default=0.0, ge=0)
    """How long it must hold before anybody is told."""
    clear_s: float = Field(default=60.0, ge=0)
    """How long it must be over before it is."""


class ThresholdRule(_Rule):
    """A figure of a metric above or below a limit, for each device, site, version or station, or over all."""

    kind: Literal["threshold"]
    metric: str
    of: Literal["p50", "p95", "p99", "count", "share"]
    above: float | None = None
    below: float | None = None
    clear: float | None = None
    """Where it is over: on the good side of the limit."""
    by: Literal["device", "site", "version", "station", "all"] = "device"
    window_s: float = Field(default=900.0, ge=60)
    min_n: int = Field(default=30, ge=1)

    @model_validator(mode="after")
    def _limits(self) -> "ThresholdRule":
        if (self.above is None) == (self.below is None):
            raise ValueError("one of above and below, got both or neither")
        if self.clear is not None and self.above is not None and self.clear > self.above:
            raise ValueError(f"clear {self.clear:g} must not be above {self.above:g}")
        if self.clear is not None and self.below is not None and self.clear < self.below:
            raise ValueError(f"clear {self.clear:g} must not be below {self.below:g}")
        return self


class AbsenceRule(_Rule):
    """Devices that used to send a metric and have sent none for so long, though they are there."""

    kind: Literal["absence"]
    metric: str = "decisions"
    window_s: float = Field(default=1800.0, ge=300)


class DriftRule(_Rule):
    """Stations at which something has drifted."""

    kind: Literal["drift"]
    model: str | None = None


class RollbackRule(_Rule):
    """Rollouts that took themselves back."""

    kind: Literal["rollback"]
    stands_s: float = Field(default=86_400.0, gt=0)


class StaleRule(_Rule):
    """Devices that were not heard of for so long."""

    kind: Literal["stale"]
    older_than_s: float = Field(default=900.0, gt=0)


class ReviewRule(_Rule):
    """Decisions that have waited for a person for so long."""

    kind: Literal["review_queue"]
    older_than_s: float = Field(default=86_400.0, gt=0)


class AgreementRule(_Rule):
    """People agree with too few of a model's audited decisions."""

    kind: Literal["agreement"]
    below: float = Field(gt=0, le=1)
    clear: float | None = None
    window_s: float = Field(default=7 * 86_400.0, ge=3600)
    min_n: int = Field(default=50, ge=1)


Rule = ThresholdRule | AbsenceRule | DriftRule | RollbackRule | StaleRule | ReviewRule | AgreementRule


class EmailChannel(_Entry):
    """Mail by SMTP."""

    name: Plain
    kind: Literal["email"]
    host: str
    port: int = Field(default=587, ge=1, le=65535)
    starttls: bool = True
    ca_file: Path | None = None
    username: str = ""
    password_file: Path | None = None
    sender: str
    recipients: list[str] = Field(min_length=1, max_length=50)
    timeout_s: float = Field(default=20.0, gt=0, le=120)


class WebhookChannel(_Entry):
    """A POST with a signed JSON document."""

    name: Plain
    kind: Literal["webhook"]
    url: str = Field(pattern=r"^https?://")
    secret_file: Path
    timeout_s: float = Field(default=10.0, gt=0, le=120)


Channel = EmailChannel | WebhookChannel


class Retraining(_Entry):
    """When a model is to be trained again, and what does it."""

    model: str
    on_drift: bool = False
    on_labels: int | None = Field(default=None, ge=1)
    """So many new reviewed labels since the last dataset version of this model."""
    command: list[str] | None = Field(default=None, min_length=1)
    url: str | None = Field(default=None, pattern=r"^https?://")
    secret_file: Path | None = None
    min_labels: int = Field(default=1, ge=1)
    """A dataset of fewer is not worth it."""
    rest_s: float = Field(default=3600.0, ge=0)
    """From one start to the next, whatever the causes."""

    @model_validator(mode="after")
    def _one_way(self) -> "Retraining":
        if (self.command is None) == (self.url is None):
            raise ValueError("one of command and url, got both or neither")
        if self.url is not None and self.secret_file is None:
            raise ValueError("url needs secret_file, so that the other side knows who asks")
        return self


class WatchConfig(_Entry):
    """The whole file."""

    rule: list[Annotated[Rule, Field(discriminator="kind")]] = Field(default=[], max_length=MAX_RULES)
    channel: list[Annotated[Channel, Field(discriminator="kind")]] = Field(default=[], max_length=50)
    retrain: list[Retraining] = Field(default=[], max_length=50)


def load(path: Path | None) -> WatchConfig:
    """Return what is watched; without a file, what is built in.

    Raises:
        ConfigError: the file cannot be read or is wrong, with every mistake on a line of its own.
    """
    source = BUILT_IN if path is None else path
    try:
        document = tomllib.loads(source.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{source}: cannot read: {error.strerror}", hint="check watch.file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: not TOML: {error}") from error
    mistakes, config = parse(document)
    if config is None:
        listed = "".join(f"\n  {mistake}" for mistake in mistakes)
        raise ConfigError(f"{source}: {len(mistakes)} mistakes:{listed}", hint="cloud/watch.toml shows every kind")
    return _resolved(config, source.resolve().parent)


def parse(document: dict[str, Any]) -> tuple[list[str], WatchConfig | None]:
    """Return every mistake, and the settings if there is none."""
    mistakes = [
        f"{key}: not known; expected rule, channel or retrain"
        for key in document
        if key not in WatchConfig.model_fields
    ]
    try:
        config = _ADAPTER.validate_python({k: v for k, v in document.items() if k in WatchConfig.model_fields})
    except ValidationError as error:
        return mistakes + [_told(document, part) for part in error.errors()], None
    mistakes += _crossed(config)
    return mistakes, None if mistakes else config


_ADAPTER: TypeAdapter[WatchConfig] = TypeAdapter(WatchConfig)


def _told(document: dict[str, Any], error: Any) -> str:
    where = list(error["loc"])
    name = ""
    if len(where) > 1 and isinstance(where[1], int):
        entry = document[where[0]][where[1]]
        name = f" ({entry.get('name', entry.get('model', ''))})" if isinstance(entry, dict) else ""
        where[1] = where[1] + 1
    rest = [str(part) for part in where[2:] if part not in _KINDS]
    place = " ".join(str(part) for part in where[:2]) + name
    return f"{place}: {'.'.join(rest) + ': ' if rest else ''}{error['msg']}"


_KINDS = frozenset(
    ("threshold", "absence", "drift", "rollback", "stale", "review_queue", "agreement", "email", "webhook")
)


def _crossed(config: WatchConfig) -> list[str]:
    mistakes = [f"rule {name!r}: given twice" for name in _twice([rule.name for rule in config.rule])]
    mistakes += [f"channel {name!r}: given twice" for name in _twice([one.name for one in config.channel])]
    mistakes += [f"retrain {name!r}: given twice" for name in _twice([one.model for one in config.retrain])]
    channels = {one.name for one in config.channel}
    for rule in config.rule:
        mistakes += [f"rule {rule.name!r}: no channel is called {name!r}" for name in rule.to if name not in channels]
    return mistakes


def _twice(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _resolved(config: WatchConfig, base: Path) -> WatchConfig:
    def absolute(entry: Any, *keys: str) -> Any:
        paths = {key: base / path for key in keys if (path := getattr(entry, key, None)) is not None}
        return entry.model_copy(update=paths)

    return config.model_copy(
        update={
            "channel": [absolute(one, "password_file", "secret_file", "ca_file") for one in config.channel],
            "retrain": [absolute(one, "secret_file") for one in config.retrain],
        }
    )
