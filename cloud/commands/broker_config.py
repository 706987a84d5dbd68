"""`lineside-cloud broker-config`: everything for a broker that somebody else runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud import config as settings
from cloud.commands.shared import exit_codes
from cloud.errors import ConfigError

if TYPE_CHECKING:
    from cloud.external import Kind

Out = Annotated[Path, typer.Option(help="Folder for the files, where the broker reads them.", metavar="DIR")]
Config = Annotated[Path | None, typer.Option(help="Settings of the control plane.")]

app = typer.Typer(help="Write the configuration of an external broker.", no_args_is_help=True)


@app.callback()
def broker_config() -> None:
    """Write listener, TLS, accounts and rights for an external broker."""


@app.command()
def mosquitto(out: Out, config: Config = None) -> None:
    """Write a complete mosquitto.conf with the files that it names, from the fleet.

    Run it again whenever devices enrol or leave, then send Mosquitto a SIGHUP; or have the control plane do both by
    itself (broker.accounts_dir, broker.reload_command).

    Example: lineside-cloud broker-config mosquitto --config cloud.toml --out /etc/mosquitto/lineside
    """
    _write("mosquitto", config, out)


@app.command()
def emqx(out: Out, config: Config = None) -> None:
    """Write lineside.hocon for EMQX 5 with the files that it names, from the fleet; include it in base.hocon.

    Run it again whenever devices enrol or leave, and have EMQX read acl.conf again. Not tried on a running EMQX yet.

    Example: lineside-cloud broker-config emqx --config cloud.toml --out /etc/emqx/lineside
    """
    _write("emqx", config, out)


def _write(kind: "Kind", config: Path | None, out: Path) -> None:
    with exit_codes():
        count = _files(kind, settings.load(config), out)
    typer.echo(f"{count} devices written to {out}.", err=True)


def _files(kind: "Kind", config: settings.CloudConfig, out: Path) -> int:
    from cloud.broker import write_files
    from cloud.clock import SystemClock
    from cloud.enrolment import accounts
    from cloud.external import external_files
    from cloud.security import Security
    from cloud.store import CloudStore

    store = CloudStore.open(config.database_url)
    try:
        files = external_files(kind, config, store, Security(config, SystemClock(), store), out)
        count = len(accounts(store))
    finally:
        store.close()
    try:
        write_files(out, files)
    except OSError as error:
        raise ConfigError(f"--out: cannot write to {out}: {error.strerror}") from error
    return count
