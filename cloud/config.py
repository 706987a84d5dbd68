"""The control plane's settings: one TOML file, every key with its unit, default and reason.

Rules:
- Unknown keys are errors, so that a misspelt one is not silently ignored.
- Relative paths are relative to the file that names them; without a file, to the working directory.
- `cloud/cloud.toml` is the reference; a test holds it against these classes.
"""

import ipaddress
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cloud.errors import ConfigError


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerConfig(_Section):
    """Where people and devices reach it by HTTP."""

    host: str = "127.0.0.1"
    port: int = Field(default=8440, ge=0, le=65535)
    public_url: str = ""
    operator_token_file: Path | None = None
    tls: Literal["auto"] | bool = "auto"
    device_host: str = ""
    device_port: int | None = Field(default=None, ge=0, le=65535)


class StoreConfig(_Section):
    """Where everything is kept."""

    data_dir: Path = Path("lineside-cloud")
    url: str = ""
    blobs: str = ""
    blobs_options: dict[str, str] = Field(default_factory=dict)


class TlsConfig(_Section):
    """The certificate that the control plane shows."""

    names: tuple[str, ...] = ()
    certificate_file: Path | None = None
    key_file: Path | None = None
    ca_file: Path | None = None
    authority_secret_file: Path | None = None

    @model_validator(mode="after")
    def _both(self) -> "TlsConfig":
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file belong together")
        return self


class BrokerConfig(_Section):
    """The MQTT broker: our own child, or one that somebody else runs."""

    kind: Literal["embedded", "external"] = "embedded"
    host: str = "127.0.0.1"
    port: int = Field(default=8441, ge=0, le=65535)
    public_host: str = ""
    public_port: int = Field(default=0, ge=0, le=65535)
    username: str = "lineside-cloud"
    password_file: Path | None = None
    tls: bool = True
    credential: Literal["certificate", "password"] = "certificate"
    ca_file: Path | None = None
    share: str = Field(default="", pattern=r"^[a-z0-9_-]{0,64}$")
    listen_host: str = "0.0.0.0"  # noqa: S104  (of an external broker, which is elsewhere)
    accounts_dir: Path | None = None
    accounts_for: Literal["mosquitto", "emqx"] = "mosquitto"
    reload_command: tuple[str, ...] = ()
    max_disk_mb: int = Field(default=1024, ge=16)

    @property
    def uses_certificates(self) -> bool:
        """Whether devices sign in by certificate; without TLS there is none to show."""
        return self.tls and self.credential == "certificate"


class IngestConfig(_Section):
    """How messages become rows."""

    group_messages: int = Field(default=25, ge=1, le=1000)
    group_wait_ms: int = Field(default=20, ge=0, le=1000)
    queue_messages: int = Field(default=1000, ge=10)
    quarantine_rows: int = Field(default=10_000, ge=10)


class LimitsConfig(_Section):
    """The largest things that are taken by HTTP."""

    input_bytes: int = Field(default=32 * 2**20, ge=1024)
    bundle_bytes: int = Field(default=512 * 2**20, ge=1024)
    inputs_disk_mb: int = Field(default=20_480, ge=1)


class RegistryConfig(_Section):
    """The signed repository of bundles."""

    keys_dir: Path | None = None
    timestamp_hours: float = Field(default=24.0, gt=0)
    snapshot_days: float = Field(default=7.0, gt=0)
    keep_versions: int = Field(default=10, ge=1)
    collect_hours: float = Field(default=24.0, ge=0)
    deltas_disk_mb: int = Field(default=512, ge=0)


class TelemetryConfig(_Section):
    """How telemetry is added up and how long it is kept."""

    otlp_endpoint: str = Field(default="", pattern=r"^(https?://.+)?$")
    otlp_every_s: float = Field(default=60.0, ge=1)
    roll_rows: int = Field(default=50, ge=1, le=2000)
    roll_every_s: float = Field(default=5.0, gt=0)
    raw_days: float = Field(default=30.0, ge=1)
    minute_days: float = Field(default=2.0, ge=0.1)
    hour_days: float = Field(default=90.0, ge=14)
    day_days: float = Field(default=1826.0, ge=90)


class DriftConfig(_Section):
    """When inputs and answers count as changed."""

    false_alarms_per_year: float = Field(default=0.1, gt=0, le=1000)
    repeat: float = Field(default=1.0, ge=1, le=100_000)


class CardsConfig(_Section):
    """Cards of new devices, made by `lineside-flash` for download."""

    command: list[str] = Field(default_factory=list, max_length=20)
    keep_min: float = Field(default=30.0, gt=0, le=24 * 60)
    max_kept: int = Field(default=4, ge=1, le=100)
    timeout_s: float = Field(default=600.0, gt=0)


class WatchSection(_Section):
    """What is watched, who is told, what is trained again."""

    file: Path | None = None


class CloudConfig(_Section):
    """All settings."""

    server: ServerConfig = ServerConfig()
    store: StoreConfig = StoreConfig()
    broker: BrokerConfig = BrokerConfig()
    ingest: IngestConfig = IngestConfig()
    limits: LimitsConfig = LimitsConfig()
    registry: RegistryConfig = RegistryConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    drift: DriftConfig = DriftConfig()
    watch: WatchSection = WatchSection()
    tls: TlsConfig = TlsConfig()
    cards: CardsConfig = CardsConfig()

    @property
    def data_dir(self) -> Path:
        """Folder of the database, the broker's store, inputs and bundles."""
        return self.store.data_dir

    @property
    def database_url(self) -> str:
        """The database's URL; an SQLite file in the data folder unless another is named."""
        return self.store.url or f"sqlite:///{self.data_dir / 'cloud.sqlite'}"

    @property
    def keys_dir(self) -> Path:
        """Folder of the online keys and the root."""
        return self.registry.keys_dir or self.data_dir / "keys"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the HTTP port."""
        return is_loopback(self.server.host)

    @property
    def console_tls(self) -> bool:
        """Whether console and API speak TLS: where others reach them, unless it is said."""
        return not self.is_loopback if self.server.tls == "auto" else self.server.tls

    @property
    def device_host(self) -> str:
        """Where devices reach us by HTTPS."""
        return self.server.device_host or self.server.host

    @property
    def device_port(self) -> int:
        """Port of devices' HTTPS: two after the console's unless it is said, a free one where that is one."""
        if self.server.device_port is not None:
            return self.server.device_port
        return self.server.port and self.server.port + 2

    def plain_text(self) -> list[str]:
        """Return what is spoken without TLS where others can listen, in words."""
        found = []
        if not self.console_tls and not self.is_loopback:
            found.append(f"console and API on {self.server.host} (server.tls)")
        if not self.broker.tls and not is_loopback(self.broker.host):
            found.append(f"the broker on {self.broker.host} (broker.tls)")
        return found

    def operator_token(self) -> str | None:
        """Return the token that operators show, or None where none is asked for.

        Raises:
            ConfigError: the address is open to others and there is no token, or its file is unusable.
        """
        path = self.server.operator_token_file
        if path is not None:
            return _secret(path, "server.operator_token_file")
        if not self.is_loopback:
            raise ConfigError(
                f"server.host is {self.server.host}, which others can reach, but no operator token is set",
                hint="set server.operator_token_file to a file with a secret of 20 characters or more",
            )
        return None

    def broker_password(self) -> str | None:
        """Return the password for an external broker, if one is set.

        Raises:
            ConfigError: its file is unusable.
        """
        path = self.broker.password_file
        return None if path is None else _secret(path, "broker.password_file", shortest=1)

    def authority_secret(self) -> str | None:
        """Return what the authority's key in the database is encrypted by, or None where the key is a file.

        Raises:
            ConfigError: its file is unusable.
        """
        path = self.tls.authority_secret_file
        return None if path is None else _secret(path, "tls.authority_secret_file")


def is_loopback(host: str) -> bool:
    """Return whether nobody but this machine can listen on the way to a host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load(path: Path | None) -> CloudConfig:
    """Return the settings in a TOML file, or the defaults for None.

    Raises:
        ConfigError: the file cannot be read, or a key is unknown or has a wrong value.
    """
    if path is None:
        return _resolved(CloudConfig(), Path.cwd())
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}", hint="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    try:
        return _resolved(CloudConfig.model_validate(document), path.resolve().parent)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {place}: {first['msg']}", hint="cloud/cloud.toml lists every key") from error


def _resolved(config: CloudConfig, base: Path) -> CloudConfig:
    def absolute(path: Path | None) -> Path | None:
        return None if path is None else base / path

    return config.model_copy(
        update={
            "server": config.server.model_copy(
                update={"operator_token_file": absolute(config.server.operator_token_file)}
            ),
            "store": config.store.model_copy(update={"data_dir": base / config.store.data_dir}),
            "broker": config.broker.model_copy(
                update={
                    "password_file": absolute(config.broker.password_file),
                    "ca_file": absolute(config.broker.ca_file),
                    "accounts_dir": absolute(config.broker.accounts_dir),
                }
            ),
            "watch": config.watch.model_copy(update={"file": absolute(config.watch.file)}),
            "tls": config.tls.model_copy(
                update={
                    key: absolute(getattr(config.tls, key))
                    for key in ("certificate_file", "key_file", "ca_file", "authority_secret_file")
                }
            ),
            "registry": config.registry.model_copy(update={"keys_dir": absolute(config.registry.keys_dir)}),
        }
    )


def _secret(path: Path, key: str, *, shortest: int = 20) -> str:
    try:
        secret = path.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{key}: cannot read {path}: {error.strerror}") from error
    if len(secret) < shortest:
        raise ConfigError(f"{key}: expected at least {shortest} characters in {path}, got {len(secret)}")
    return secret
