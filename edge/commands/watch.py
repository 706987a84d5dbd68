"""`lineside-edge status --watch`: the device in a terminal, over SSH too: what it sees, decides, waits for, runs.

Rules:
- Reads the device's own record and nothing else, so it works while the daemon runs, and when it does not.
- Ends with Ctrl-C, or by itself when nobody watches any more (the terminal is gone).
"""

import time
from collections import Counter
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edge.clock import Clock, SystemClock
from edge.commands.status import STALE_AFTER_INTERVALS, dropped_words, processor
from edge.config import Config, load_config
from edge.errors import StoreError
from edge.linkstate import link_words, read_link
from edge.report import REPORTED_META
from edge.station import store_path
from edge.store import OutboxSize, Store
from edge.wire.messages import Reported
from edge.wire.rows import DecisionRow, EventRow

REFRESH_S = 0.5
LAST = 12
"""Decisions that are listed: they fit a terminal of 24 lines with what stands around them."""
MEASURED = 200
"""Decisions that shares and latencies are of."""
EVENT_ROWS = 400
STYLES: dict[str, str] = {"pass": "green", "accept": "green", "divert": "red", "defer": "yellow"}


def run(config_path: Path, *, console: Console | None = None, frames: int | None = None) -> int:
    """Show the device until Ctrl-C, or for a number of frames."""
    config, clock = load_config(config_path), SystemClock()
    console = console or Console()
    shown = 0
    with Live(console=console, refresh_per_second=1 / REFRESH_S, screen=console.is_terminal) as live:
        try:
            while frames is None or shown < frames:
                live.update(look(config, clock), refresh=True)
                shown += 1
                if frames is None or shown < frames:
                    time.sleep(REFRESH_S)
        except KeyboardInterrupt:
            return 0
    return 0


def look(config: Config, clock: Clock) -> RenderableType:
    """Return the picture of this moment."""
    try:
        with Store.open_read_only(store_path(config), clock=clock) as store:
            saved = store.get_meta(REPORTED_META)
            decisions = store.last_decisions(MEASURED)
            events = [r for r in store.rows(store.last_seq() - EVENT_ROWS, kind="event") if isinstance(r, EventRow)]
            outbox = store.outbox_size()
            link = None if config.cloud is None else link_words(read_link(store), clock.now_ms())
    except StoreError as error:
        return Panel(f"{error}", title=config.device.name)
    reported = Reported.model_validate_json(saved) if saved else None
    return Group(
        _head(config, reported, outbox, clock, link),
        _stations(reported, decisions),
        _last(decisions[:LAST], clock),
        _alarms([event for event in events if event.severity != "info"][-3:], clock),
    )


def _head(
    config: Config, reported: Reported | None, outbox: OutboxSize, clock: Clock, link: str | None
) -> RenderableType:
    if reported is None:
        return Text(f"{config.device.name}: no report yet", style="yellow")
    age_s = (clock.now_ms() - reported.sent_at_ms) / 1000
    fresh = age_s <= STALE_AFTER_INTERVALS * reported.interval_s
    health = reported.health
    state = Text("fresh", style="green") if fresh else Text(f"STALE since {age_s:.0f} s", style="bold red")
    oldest = "" if outbox.oldest_at_ms is None else f", oldest {(clock.now_ms() - outbox.oldest_at_ms) / 1000:.0f} s"
    warm = "" if health.temperature_c is None else f" · {health.temperature_c:.0f} °C"
    return Text.assemble(
        (reported.device, "bold"),
        "  ",
        state,
        f"  {reported.profile} at {reported.site} · lineside {reported.software} · config {reported.config_version}\n",
        *_link(link, fresh=fresh),
        f"{outbox.rows} rows unsent{oldest} · {health.uploads_waiting} inputs to send\n" if link is not None else "",
        processor(health),
        f"disk {health.disk_free_bytes / 2**30:.1f} GiB free · memory {health.memory_bytes / 2**20:.0f} MiB{warm}",
        f"\n{gone}" if (gone := dropped_words(reported)) else "",
    )


def _link(words: str | None, *, fresh: bool) -> list[str | tuple[str, str]]:
    if words is None:
        return [("no control plane is configured: the device works alone\n", "dim")]
    if not fresh:
        return [(f"link unknown, the daemon is silent; it was: {words}", "yellow"), " · "]
    return [(words, "green" if words.startswith("connected") else "bold red"), " · "]


def _stations(reported: Reported | None, decisions: list[DecisionRow]) -> RenderableType:
    table = Table(expand=True, box=None, pad_edge=False, header_style="dim")
    for title in ("station", "mode", "bundle", "verdicts", "p50", "p95", "slots"):
        table.add_column(title, overflow="fold")
    for name, station in (reported.stations if reported else {}).items():
        own = [row for row in decisions if row.station == name]
        counts = Counter(row.verdict for row in own)
        times = sorted(row.latency_ms.get("total", 0.0) for row in own)
        slots = reported.slots.get(station.model, []) if reported else []
        table.add_row(
            Text(name, style="bold") if not station.problem else Text(f"{name}: {station.problem}", style="red"),
            station.mode,
            f"{station.serving.name} {station.serving.version}" if station.serving else Text("none", style="red"),
            Text(" ").join(Text(f"{v} {n}", style=STYLES[v]) for v, n in sorted(counts.items())),
            quantile(times, 0.5),
            quantile(times, 0.95),
            " ".join(f"{slot.bundle.version}:{slot.state}" for slot in slots),
        )
    return table


def _last(decisions: list[DecisionRow], clock: Clock) -> RenderableType:
    table = Table(expand=True, box=None, pad_edge=False, header_style="dim")
    for title in ("ago", "station", "verdict", "label", "sure", "ms", "input", "why"):
        table.add_column(title, no_wrap=True)
    for row in decisions:
        table.add_row(
            f"{(clock.now_ms() - row.at_ms) / 1000:.0f} s",
            row.station,
            Text(row.verdict, style=STYLES[row.verdict]),
            row.label or "",
            "" if row.confidence is None else f"{row.confidence:.3f}",
            f"{row.latency_ms.get('total', 0.0):.1f}",
            row.input.name,
            ": ".join(part for part in (row.reason, row.detail) if part),
        )
    return table


def _alarms(events: list[EventRow], clock: Clock) -> RenderableType:
    lines = [
        Text(
            f"{(clock.now_ms() - event.at_ms) / 1000:.0f} s ago  {event.name}: {event.detail}",
            style="red" if event.severity == "alarm" else "yellow",
            overflow="ellipsis",
            no_wrap=True,
        )
        for event in events
    ]
    return Group(*lines)


def quantile(values: list[float], share: float) -> str:
    """Return a quantile of ascending times in words, nothing for none."""
    return f"{values[min(len(values) - 1, int(len(values) * share))]:.1f} ms" if values else ""
