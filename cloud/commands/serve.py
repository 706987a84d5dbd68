"""`lineside-cloud serve`: run the control plane."""

import asyncio
import gc
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cloud import config as settings
from cloud.commands.shared import AsJson, exit_codes, fail
from cloud.errors import CloudError
from cloud.logs import configure


def serve(
    config: Annotated[Path | None, typer.Option(help="Settings; cloud/cloud.toml explains each.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder for everything it keeps.", metavar="DIR")] = None,
    port: Annotated[int | None, typer.Option(help="HTTP port; 0 for a free one.", min=0, max=65535)] = None,
    device_port: Annotated[
        int | None, typer.Option(help="HTTPS port for devices; 0 for a free one.", min=0, max=65535)
    ] = None,
    broker_port: Annotated[int | None, typer.Option(help="MQTT port; 0 for a free one.", min=0, max=65535)] = None,
    as_json: AsJson = False,
) -> None:
    """Run the control plane: console, API, broker. Ctrl-C stops it in order; kill -9 loses nothing.

    Without settings everything is kept in ./lineside-cloud and only this machine can reach it.
    With --json, the first line on stdout tells the addresses and the log on stderr is JSON too.

    Example: lineside-cloud serve --config cloud.toml
    """
    gc.disable()  # until all is loaded: nothing of it is garbage, and looking takes a seventh of the start
    from cloud import server

    gc.freeze()
    gc.enable()
    configure(as_json=as_json)

    def ready(addresses: server.Addresses) -> None:
        line = (
            json.dumps({"event": "listening", **asdict(addresses)})
            if as_json
            else f"Console: {addresses.url}   Devices: {addresses.device_url}   "
            f"Broker: {addresses.broker_host}:{addresses.broker_port}"
        )
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    with exit_codes():
        chosen = _override(settings.load(config), data_dir, port, device_port, broker_port)
        try:
            asyncio.run(server.serve(chosen, ready))
        except BaseExceptionGroup as group:
            ours = group.subgroup(CloudError)
            if ours is None:
                raise
            fail(_first(ours))
        except KeyboardInterrupt:
            logging.getLogger(__name__).info("interrupted before it was up")


def _override(
    config: settings.CloudConfig,
    data_dir: Path | None,
    port: int | None,
    device_port: int | None,
    broker_port: int | None,
) -> settings.CloudConfig:
    if data_dir is not None:
        config = config.model_copy(update={"store": config.store.model_copy(update={"data_dir": data_dir.resolve()})})
    if port is not None:
        config = config.model_copy(update={"server": config.server.model_copy(update={"port": port})})
    if device_port is not None:
        server = config.server.model_copy(update={"device_port": device_port})
        config = config.model_copy(update={"server": server})
    if broker_port is not None:
        config = config.model_copy(update={"broker": config.broker.model_copy(update={"port": broker_port})})
    return config


def _first(group: BaseExceptionGroup[CloudError]) -> CloudError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
