"""The command `lineside-cloud`: one file per group of subcommands in `cloud/commands/`."""

import typer

from cloud.commands import (
    alerts,
    audit,
    broker_config,
    demo,
    devices,
    keys,
    login,
    metrics,
    models,
    people,
    retrain,
    rollouts,
    serve,
    tokens,
)

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
app.add_typer(rollouts.app, name="rollouts")
app.add_typer(audit.app, name="audit")
app.add_typer(metrics.app, name="metrics")
app.add_typer(alerts.app, name="alerts")
app.command()(retrain.retrain)
app.command()(retrain.retrainings)
app.add_typer(people.app, name="people")
app.command()(login.login)
app.command()(login.logout)
app.add_typer(tokens.app, name="tokens")
app.command()(demo.demo)


def main() -> None:
    """Run the command line."""
    app(prog_name="lineside-cloud")


if __name__ == "__main__":
    main()
