"""`lineside-cloud broker-config`: files for a broker that somebody else runs."""

from pathlib import Path
from typing import Annotated

import typer

from cloud import config as settings
from cloud.commands.shared import exit_codes
from cloud.errors import ConfigError

app = typer.Typer(help="Write accounts and rights for an external broker.", no_args_is_help=True)


@app.callback()
def broker_config() -> None:
    """Write accounts and rights for an external broker."""


@app.command()
def mosquitto(
    out: Annotated[Path, typer.Option(help="Folder for password_file and acl_file.", metavar="DIR")],
    config: Annotated[Path | None, typer.Option(help="Settings of the control plane.")] = None,
) -> None:
    """Write Mosquitto's password_file and acl_file from the fleet.

    Run it again whenever devices enrol or leave, then send Mosquitto a SIGHUP.

    Example: lineside-cloud broker-config mosquitto --config cloud.toml --out /etc/mosquitto/lineside
    """
    with exit_codes():
        chosen = settings.load(config)
        password = chosen.broker_password()
        if password is None:
            raise ConfigError("broker.password_file is not set", hint="the control plane needs a password of its own")
        count = _write(chosen, password, out)
    typer.echo(f"{count} devices written to {out}.", err=True)


def _write(config: settings.CloudConfig, password: str, out: Path) -> int:
    from cloud.blobs import write_durably
    from cloud.broker import mosquitto_files
    from cloud.enrolment import mosquitto_accounts, mosquitto_hash
    from cloud.store import CloudStore

    store = CloudStore.open(config.database_url)
    accounts = mosquitto_accounts(store)
    store.close()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in mosquitto_files((config.broker.username, mosquitto_hash(password)), accounts).items():
            write_durably(out / name, text.encode(), mode=0o600)
    except OSError as error:
        raise ConfigError(f"--out: cannot write to {out}: {error.strerror}") from error
    return len(accounts)
