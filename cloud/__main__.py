"""The command `lineside-cloud`: one file per group of subcommands in `cloud/commands/`."""

import typer

from cloud.commands.lazily import group_of

COMMANDS = {
    "serve": "cloud.commands.serve:serve",
    "devices": "cloud.commands.devices:app",
    "models": "cloud.commands.models:app",
    "keys": "cloud.commands.keys:app",
    "broker-config": "cloud.commands.broker_config:app",
    "rollouts": "cloud.commands.rollouts:app",
    "authority": "cloud.commands.authority:app",
    "audit": "cloud.commands.audit:app",
    "metrics": "cloud.commands.metrics:app",
    "alerts": "cloud.commands.alerts:app",
    "retrain": "cloud.commands.retrain:retrain",
    "retrainings": "cloud.commands.retrain:retrainings",
    "people": "cloud.commands.people:app",
    "login": "cloud.commands.login:login",
    "logout": "cloud.commands.login:logout",
    "tokens": "cloud.commands.tokens:app",
    "demo": "cloud.commands.demo:demo",
}

app = typer.Typer(
    cls=group_of(COMMANDS),
    help="The control plane of a fleet of Lineside devices: run it, and talk to it.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong use, 4 refused or not found, 5 control plane not reachable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def lineside_cloud() -> None:
    """Make a group of it, though no subcommand is known here."""


def main() -> None:
    """Run the command line."""
    app(prog_name="lineside-cloud")


if __name__ == "__main__":
    main()
