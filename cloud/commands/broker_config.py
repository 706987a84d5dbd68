"""`lineside-cloud broker-config`: files for a broker that somebody else runs."""

from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import select

from cloud import config as settings
from cloud import tables
from cloud.blobs import write_durably
from cloud.broker import mosquitto_files
from cloud.commands.shared import exit_codes
from cloud.enrolment import mosquitto_hash
from cloud.errors import ConfigError
from cloud.store import CloudStore

app = typer.Typer(help="Write accounts and rights for an external broker.", no_args_is_help=True)


@app.callback()
def broker_config() -> None:
    """Write accounts and rights for an external broker."""


@app.command()
def mosquitto(
    out: Annotated[Path, typer.Option(help="Folder for password_file and acl_file.", metavar="DIR")],
    config: Annotated[Path | None, typer.Option(help="Settings of the control plane.")] = None,
) -> None:
    """Write Mosquitto's password_file and acl_file from the fleet; run it again whenever devices enrol or leave,
    then send Mosquitto a SIGHUP.

    Example: lineside-cloud broker-config mosquitto --config cloud.toml --out /etc/mosquitto/lineside
    """
    with exit_codes():
        chosen = settings.load(config)
        password = chosen.broker_password()
        if password is None:
            raise ConfigError("broker.password_file is not set", hint="the control plane needs a password of its own")
        devices = tables.devices.c
        query = select(devices.device, devices.mosquitto_password_hash).where(
            devices.revoked_at_ms.is_(None), devices.mosquitto_password_hash.is_not(None)
        )
        store = CloudStore.open(chosen.database_url)
        with store.read() as connection:
            accounts = [(row.device, row.mosquitto_password_hash) for row in connection.execute(query)]
        store.close()
        files = mosquitto_files((chosen.broker.username, mosquitto_hash(password)), accounts)
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                write_durably(out / name, text.encode(), mode=0o600)
        except OSError as error:
            raise ConfigError(f"--out: cannot write to {out}: {error.strerror}") from error
    typer.echo(f"{len(accounts)} devices written to {out}.", err=True)
