"""`lineside-cloud rollouts`: start, watch, pause, resume and abort rollouts."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cloud.commands.shared import DEFAULT_URL, AsJson, Server, TokenFile, Unaudited, client, exit_codes, print_json
from cloud.errors import ConfigError, NotFoundError
from cloud.plans import parse_plan
from cloud.rollout_state import OPEN

app = typer.Typer(help="Give devices a new model version step by step, and take a bad one back.", no_args_is_help=True)

BAR_WIDTH = 24
COLOURS = {"pass": "green", "fail": "red", "need_more": "yellow"}
LOG_LINES = 12
WATCH_S = 1.0
"""As often as the conductor looks."""

Id = Annotated[str, typer.Argument(metavar="ID", help="The rollout, as `rollouts status` lists it.")]
Why = Annotated[str, typer.Option("--why", help="Reason, kept in the audit log.")]


@app.command()
def start(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    version: Annotated[str, typer.Argument(help="Version to roll out; it must have been published.")],
    plan: Annotated[
        Path | None,
        typer.Option("--plan", help="Plan as TOML or JSON. Without one: shadow, a tenth, half, all.", metavar="FILE"),
    ] = None,
    why: Annotated[str, typer.Option("--why", help="Reason, kept in the audit log.")] = "",
    unaudited: Unaudited = "",
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Start a rollout. It goes forward only while its gates pass, and back by itself if one fails.

    Example: lineside-cloud rollouts start phone_glass 1.1.0 --why "less glare"
    """
    with exit_codes():
        text = _read(plan)
    with client(server, token_file) as cloud:
        request = {"model": name, "version": version, "plan": text, "why": why, "unaudited": unaudited}
        started = cloud.post("/v1/rollouts", request)
    if as_json:
        print_json(started)
        return
    typer.echo(started["id"])
    typer.echo(f"Started. Watch it: lineside-cloud rollouts status {started['id']}", err=True)


@app.command()
def status(
    rollout: Annotated[str | None, typer.Argument(metavar="ID", help="One rollout; all of them if left out.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Tell each step until it ends; exit code 1 if it was taken back.")
    ] = False,
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List the rollouts, or show one: its stage, its arms, what the gates know and what they still need, and why.

    With --watch and no ID it is the newest one.

    Example: lineside-cloud rollouts status --watch
    """
    if watch:
        _watch(rollout, server, token_file)
        return
    with client(server, token_file) as cloud:
        shown = cloud.get("/v1/rollouts" if rollout is None else f"/v1/rollouts/{rollout}")
    if as_json:
        print_json(shown)
    elif rollout is None:
        _print_list(shown["rollouts"])
    else:
        _print_one(shown, Console(soft_wrap=True))


@app.command()
def pause(
    rollout: Id, why: Why, server: Server = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Let a rollout take no step forward. A failing gate still takes it back.

    Example: lineside-cloud rollouts pause ID --why "shift change"
    """
    _move(rollout, "pause", why, server, token_file, as_json=as_json)


@app.command()
def resume(
    rollout: Id, why: Why, server: Server = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Let a paused rollout go on; the time of its stage begins anew.

    Example: lineside-cloud rollouts resume ID --why "the line runs again"
    """
    _move(rollout, "resume", why, server, token_file, as_json=as_json)


@app.command()
def abort(
    rollout: Id, why: Why, server: Server = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Take a rollout back from all devices; they return to what they ran before.

    Example: lineside-cloud rollouts abort ID --why "wrong labels in training"
    """
    _move(rollout, "abort", why, server, token_file, as_json=as_json)


def _watch(rollout: str | None, server: str, token_file: Path | None) -> None:
    """Tell what is new in a rollout's log until it ends."""
    told: set[tuple[Any, ...]] = set()
    with client(server, token_file) as cloud:
        if rollout is None:
            newest = cloud.get("/v1/rollouts")["rollouts"]
            if not newest:
                raise NotFoundError("no rollout yet", hint="start one: lineside-cloud rollouts start NAME VERSION")
            rollout = newest[0]["id"]
        while True:
            view = cloud.get(f"/v1/rollouts/{rollout}")
            for line in view["log"]:
                if (key := (line["at_ms"], line["step"], line["reason"])) not in told:
                    told.add(key)
                    typer.echo(f"{_words(line['step'])}: {line['reason']}")
            if view["status"] not in OPEN:
                break
            time.sleep(WATCH_S)
    if view["status"] != "done":
        raise typer.Exit(1)


def _read(plan: Path | None) -> str:
    if plan is None:
        return ""
    try:
        text = plan.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--plan: cannot read {plan}: {error}") from error
    parse_plan(text, name=str(plan))  # so that a mistake is named here, with the file's name
    return text


def _move(rollout: str, move: str, why: str, server: str, token_file: Path | None, *, as_json: bool) -> None:
    with client(server, token_file) as cloud:
        moved = cloud.post(f"/v1/rollouts/{rollout}/{move}", {"why": why})
    if as_json:
        print_json(moved)
    else:
        typer.echo(f"{moved['id']} is {_words(moved['status'])}: {moved['why']}", err=True)


def _print_list(rollouts: list[dict[str, Any]]) -> None:
    if not rollouts:
        typer.echo("No rollout yet. Start one: lineside-cloud rollouts start NAME VERSION")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("ID", "STATUS", "STAGE"):
        table.add_column(column, no_wrap=True)
    table.add_column("WHY", overflow="fold")
    for view in rollouts:
        table.add_row(view["id"], _words(view["status"]), _stage(view), view["why"])
    Console().print(table)


def _print_one(view: dict[str, Any], console: Console) -> None:
    console.print(Text(f"{view['model']} {view['version']}: {_words(view['status'])}", style="bold"))
    console.print(view["why"])
    if view["stage"]:
        stage = view["stage"]
        console.print(f"stage   {_stage(view)}, {stage['elapsed_s']:.0f} s of at most {stage['max_s']:g} s")
    for role in ("candidate", "control", "waiting", "already"):
        if view["arms"][role]:
            console.print(f"{role:<10}{', '.join(view['arms'][role])}")
    for role in ("refused", "failed"):
        for why in view["arms"][role].values():
            console.print(f"{role:<10}{why}")
    if view["gates"]:
        console.print(_gates(view["gates"]))
    told = {gate["words"] for gate in view["gates"]}
    for missing in view["waiting_for"]:
        if missing not in told:
            console.print(f"missing   {missing}")
    for line in view["log"][-LOG_LINES:]:
        console.print(Text(f"  {_words(line['step'])}: {line['reason']}", style="dim"))


def _gates(gates: list[dict[str, Any]]) -> Table:
    """Bars of the upper bound of the harm on its way down to the margin: full is passed."""
    table = Table(box=None, pad_edge=False)
    for column in ("GATE", "ANSWER", "TO THE MARGIN", "WHAT IS KNOWN"):
        table.add_column(column)
    for gate in gates:
        colour = COLOURS[gate["verdict"]]
        done = 1.0 if gate["verdict"] == "pass" else (1.0 - gate["high"]) / max(1.0 - gate["margin"], 1e-9)
        bar = ProgressBar(total=1.0, completed=min(max(done, 0.0), 1.0), width=BAR_WIDTH, complete_style=colour)
        table.add_row(gate["gate"], Text(_words(gate["verdict"]), style=colour), bar, gate["words"])
    return table


def _stage(view: dict[str, Any]) -> str:
    stage = view["stage"]
    return f"{stage['kind']} ({stage['number']} of {stage['of']})" if stage else "not begun"


def _words(name: str) -> str:
    return name.replace("_", " ")
