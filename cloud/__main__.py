"""The command `lineside-cloud`: one file per group of subcommands in `cloud/commands/`."""

from importlib import import_module
from importlib.util import find_spec

import typer

from cloud.commands import broker_config, devices, keys, models, serve

app = typer.Typer(
    help="The control plane of a fleet of Lineside devices: run it, and talk to it.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong use, 4 refused or not found, 5 control plane not reachable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve.serve)
app.add_typer(devices.app, name="devices")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(broker_config.app, name="broker-config")
for _name in ("rollouts", "demo"):
    if find_spec(f"cloud.commands.{_name}") is not None:
        app.add_typer(import_module(f"cloud.commands.{_name}").app, name=_name)


def main() -> None:
    """Run the command line."""
    app(prog_name="lineside-cloud")


if __name__ == "__main__":
    main()
