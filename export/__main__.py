"""`lineside-export`: from a folder of pictures or sounds to a signed bundle, and every step of it alone.

Rules:
- Each command is a file of `export/commands`; nothing heavy is imported before the command that needs it.
- Exit codes: 0 done, 1 done and the answer is no, 2 wrong arguments, 3 the data, bundle or recipe is not usable.
"""

import typer

from export.commands import keys, runs
from export.commands.compare import compare
from export.commands.fit import fit
from export.commands.inspect import inspect
from export.commands.keys import sign
from export.commands.steps import audit, calibrate, pack, quantize
from export.commands.train import train
from export.commands.wrap import wrap

app = typer.Typer(
    name="lineside-export",
    help="From a folder of pictures or sounds to a signed bundle; and look into bundles.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

for _command in (fit, inspect, compare, quantize, calibrate, audit, pack, sign, train, wrap):
    app.command()(_command)
app.add_typer(runs.app, name="runs")
app.add_typer(keys.app, name="keys")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
