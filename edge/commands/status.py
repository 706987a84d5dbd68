"""`lineside-edge status`: how the device does, read from its own record, also while the daemon runs.

Rules:
- Age is said: a state that the daemon wrote long ago is not shown as the present.
- Exit codes: 0 fresh, 1 stale or never started.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from edge.clock import SystemClock
from edge.config import Config, load_config
from edge.errors import StoreError
from edge.linewatch import read_line
from edge.linkstate import link_words, read_link
from edge.overrides import read_switch
from edge.report import REPORTED_META
from edge.station import store_path
from edge.store import Store
from edge.wire.messages import Health, Reported

STALE_AFTER_INTERVALS = 3


def run(config_path: Path, *, as_json: bool, out: TextIO | None = None) -> int:
    """Print the device's state; return the exit code."""
    config = load_config(config_path)
    clock = SystemClock()
    try:
        with Store.open_read_only(store_path(config), clock=clock) as store:
            saved, outbox = store.get_meta(REPORTED_META), store.outbox_size()
            link = None if config.cloud is None else read_link(store)
            lines = {name: line_words(config, store, name) for name in config.station}
    except StoreError as error:
        print(f"{config.device.name}: never started here ({error})", file=out)
        return 1
    if saved is None:
        print(f"{config.device.name}: started, no report yet", file=out)
        return 1
    reported = Reported.model_validate_json(saved)
    age_s = (clock.now_ms() - reported.sent_at_ms) / 1000
    fresh = age_s <= STALE_AFTER_INTERVALS * reported.interval_s
    if as_json:
        document = {
            "fresh": fresh,
            "age_s": round(age_s, 1),
            "outbox_rows": outbox.rows,
            "rules": lines,
            "link": link.model_dump() if link else None,
            "reported": reported.model_dump(),
        }
        print(json.dumps(document), file=out)
    else:
        words = "no control plane is configured" if config.cloud is None else link_words(link, clock.now_ms())
        rows = None if config.cloud is None else outbox.rows
        print(as_text(reported, age_s, fresh=fresh, outbox_rows=rows, rules=lines, link=words), file=out)
    return 0 if fresh else 1


def line_words(config: Config, store: Store, name: str) -> list[str]:
    """Return what a station asks for without a model, and what was switched at the device, for people."""
    words = config.station[name].rules.in_words()
    switch, line = read_switch(store, name), read_line(store, name)
    if switch.mode is not None:
        words.append(f"mode {switch.mode} is held at the device by {switch.by or 'somebody'}")
    if line.stop is not None:
        words.append(f"STOPPED: {line.why}; `lineside-edge acknowledge {name}` lets it run again")
    return words


def processor(health: Health) -> str:
    """Return the share of the processor that the daemon and its children use, empty if it is not known yet."""
    if health.cpu_percent is None:
        return ""
    cores = health.extra.get("cores")
    held = f", held to core {', '.join(map(str, cores))}" if isinstance(cores, list) else ""
    return f"processor {health.cpu_percent:.0f} % of a core{held}, "


def as_text(
    reported: Reported,
    age_s: float,
    *,
    fresh: bool,
    outbox_rows: int | None,
    rules: Mapping[str, list[str]],
    link: str,
) -> str:
    """Return the state for people; `outbox_rows` is None where nobody waits for them."""
    head = f"{reported.device}  {'fresh' if fresh else 'STALE'}, {age_s:.0f} s ago  config {reported.config_version}"
    lines = [head, f"  {reported.profile} at {reported.site}, lineside {reported.software}"]
    for name, station in reported.stations.items():
        serving = f"{station.serving.name} {station.serving.version}" if station.serving else "no bundle"
        lines.append(f"  station {name}: {station.mode}, {serving} on {station.runtime}, {station.decisions} decisions")
        lines.extend(f"    {words}" for words in rules.get(name, []))
        if station.problem:
            lines.append(f"    ! {station.problem}")
    for slots in reported.slots.values():
        for slot in slots:
            why = f" ({slot.reason})" if slot.reason else ""
            lines.append(f"  slot {slot.state:<7} {slot.bundle.name} {slot.bundle.version}{why}")
    lines.extend(f"  refused {r.bundle.name} {r.bundle.version}: {r.reason}" for r in reported.refusals)
    health = reported.health
    lines.append(f"  {link}")
    waiting = "" if outbox_rows is None else f"outbox {outbox_rows} rows, {health.uploads_waiting} uploads waiting, "
    lines.append(
        f"  {waiting}{processor(health)}"
        f"memory {health.memory_bytes / 2**20:.0f} MiB, disk free {health.disk_free_bytes / 2**30:.1f} GiB"
    )
    if gone := dropped_words(reported):
        lines.append(f"  {gone}")
    return "\n".join(lines)


def dropped_words(reported: Reported) -> str:
    """Return what the device has dropped, or not written, in words; nothing for nothing."""
    dropped = reported.health.extra.get("dropped")
    return str(dropped.get("words", "")) if isinstance(dropped, dict) else ""
