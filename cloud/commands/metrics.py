"""`lineside-cloud metrics`: which metrics there are, and what they were."""

import re
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cloud.commands.shared import DEFAULT_URL, AsJson, Server, TokenFile, client, exit_codes, print_json, print_table
from cloud.errors import ConfigError

app = typer.Typer(help="Metrics of the fleet over time.", no_args_is_help=True)

_UNITS_S = {"m": 60, "h": 3600, "d": 86_400}
_STEPS_S = {"minute": 60, "hour": 3600, "day": 86_400}


@app.command("list")
def show(
    stage: Annotated[str | None, typer.Option(help="camera, gate, model, microphone, vad, …", metavar="NAME")] = None,
    device: Annotated[str | None, typer.Option(help="Only of this device.", metavar="NAME")] = None,
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List the metrics that devices have sent.

    Example: lineside-cloud metrics list --stage camera
    """
    with client(server, token_file) as cloud:
        found = cloud.get("/v1/metrics", stage=stage, device=device)["metrics"]
    if as_json:
        print_json(found)
        return
    rows = [[m["stage"], m["metric"], m["kind"], m["unit"], str(m["devices"])] for m in found]
    print_table(("STAGE", "METRIC", "KIND", "UNIT", "DEVICES"), rows, empty="No device has sent telemetry yet.")


@app.command()
def query(
    metric: Annotated[str, typer.Argument(help="As `metrics list` names it, for example latency_ms.total.")],
    last: Annotated[str, typer.Option(help="How far back, for example 30m, 6h or 7d.")] = "1h",
    by: Annotated[
        list[str] | None, typer.Option(help="A group for each device, site, version, station, stage or model.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Only of this device.", metavar="NAME")] = None,
    site: Annotated[str | None, typer.Option(help="Only of this site.", metavar="NAME")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.", metavar="NAME")] = None,
    version: Annotated[str | None, typer.Option(help="Only of this version.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only of this stage.", metavar="NAME")] = None,
    step: Annotated[str | None, typer.Option(help="minute, hour or day; without it, what is readable.")] = None,
    over_time: Annotated[bool, typer.Option("--over-time", help="A row for each step instead of totals.")] = False,
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what a metric was. A percentile's certain bounds stand behind it.

    Example: lineside-cloud metrics query latency_ms.total --last 6h --by version
    """
    with exit_codes():
        span_ms, step_s = _span_ms(last), _step_s(step)
    now_ms = time.time_ns() // 1_000_000
    asked = {"device": device, "site": site, "model": model, "version": version, "stage": stage, "step_s": step_s}
    with client(server, token_file) as cloud:
        times = {"from_ms": now_ms - span_ms, "to_ms": now_ms + 1}
        found = cloud.get("/v1/metrics/query", metric=metric, by=by or None, **times, **asked)
    if as_json:
        print_json(found)
        return
    heads = [word.upper() for word in found["by"]]
    rows = [row for group in found["groups"] for row in _rows(group, found["by"], over_time=over_time)]
    columns = (*(["AT"] if over_time else []), *heads, "COUNT", "VALUE")
    print_table(columns, rows, empty="Nothing was counted in this time.")


def _rows(group: dict[str, Any], by: list[str], *, over_time: bool) -> list[list[str]]:
    names = [str(group[name]) or "–" for name in by]
    if not over_time:
        return [[*names, str(group["total"]["count"]), _value(group["total"])]]
    return [[_when(point["at_ms"]), *names, str(point["count"]), _value(point)] for point in group["points"]]


def _value(point: dict[str, Any]) -> str:
    if "percentiles" not in point:
        return "" if point["share"] is None else f"{100 * point['share']:.2f} % of {point['of']} decisions"
    return "   ".join(f"p{name} {_bounded(found)}" for name, found in point["percentiles"].items())


def _bounded(found: dict[str, Any]) -> str:
    low = "…" if found["low"] is None else f"{found['low']:.4g}"
    high = "…" if found["high"] is None else f"{found['high']:.4g}"
    return f"{found['value']:.4g} ({low}–{high})"


def _span_ms(last: str) -> int:
    match = re.fullmatch(r"(\d{1,5})([mhd])", last)
    if match is None or not int(match[1]):
        raise ConfigError(f"--last: expected for example 30m, 6h or 7d, got {last!r}")
    return int(match[1]) * _UNITS_S[match[2]] * 1000


def _step_s(step: str | None) -> int | None:
    if step is not None and step not in _STEPS_S:
        raise ConfigError(f"--step: expected minute, hour or day, got {step!r}")
    return None if step is None else _STEPS_S[step]


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")
