"""Many simulated devices in a process of its own: a JSON line on stdin says what, JSON lines on stdout say how far.

Rules:
- `ready` comes when all devices are connected, `done` when the time is over and everything is stored, or is not after
  `DRAIN_S`. A line on stdin in between ends the time.
- A device that lost its connection comes back after `RECONNECT_S`, at a drawn moment.
"""

import asyncio
import json
import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.simdevice import BATCH_WINDOWS, RECONNECT_S, SimDevice, Site, Tally

CONNECTING = 50
"""Devices that connect at the same time; a fleet that comes back after a power cut is another question."""
DRAIN_S = 60.0
TICK_S = 0.05


@dataclass(frozen=True)
class Load:
    """What to simulate."""

    site: Site
    names: list[str]
    seed: int
    seconds: float
    telemetry_every_s: float = 60.0
    decisions_per_s: float = 0.0
    """Of all devices together."""
    flood: str | None = None
    """Kind of rows that are sent as fast as they are stored."""
    report_every_s: float = 60.0


async def run(load: Load) -> dict[str, Any]:
    """Simulate; return the figures."""
    tally = Tally()
    fleet = [SimDevice(name, load.site, load.seed, tally) for name in load.names]
    began_s = time.monotonic()
    await _connect_all(fleet)
    _say({"ready": len(fleet), "connect_s": time.monotonic() - began_s})
    upkeep = asyncio.create_task(_keep_up(fleet))
    before = (tally.rows, tally.messages, tally.payload_bytes)
    began_s = time.monotonic()
    tally.ack_s.clear()
    await _produce(fleet, load)
    took_s = time.monotonic() - began_s
    stored = sum(device.stored_through for device in fleet)
    for device in fleet:
        device.flood = None
    made = (tally.rows - before[0], tally.messages - before[1], tally.payload_bytes - before[2])
    drain_s = await _drain(fleet)
    upkeep.cancel()
    return {"took_s": took_s, "stored_in_time": stored, "drain_s": drain_s, **_figures(fleet, tally, made)}


def _figures(fleet: list[SimDevice], tally: Tally, made: tuple[int, int, int]) -> dict[str, Any]:
    waits = sorted(tally.ack_s) or [0.0]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "rows": made[0],
        "messages": made[1],
        "payload_bytes": made[2],
        "made": {device.name: device.made for device in fleet},
        "sums": {device.name: device.decisions_sum for device in fleet},
        "waiting": sum(device.waiting for device in fleet),
        "resent": tally.resent,
        "lost_connections": tally.lost_connections,
        "ack_p50_ms": 1000 * waits[len(waits) // 2],
        "ack_p99_ms": 1000 * waits[min(int(len(waits) * 0.99), len(waits) - 1)],
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }


async def _connect_all(fleet: list[SimDevice]) -> None:
    slots = asyncio.Semaphore(CONNECTING)

    async def one(device: SimDevice) -> None:
        async with slots:
            while not device.connected:
                try:
                    await device.connect()
                except OSError:
                    await asyncio.sleep(device.rng.uniform(0.2, 1.0))
            device.report(60.0)

    await asyncio.gather(*(one(device) for device in fleet))


async def _produce(fleet: list[SimDevice], load: Load) -> None:
    rng = fleet[0].rng
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline) if load.seconds <= 0 else None
    began_s = last_s = time.monotonic()
    due = [began_s + device.rng.uniform(0, load.telemetry_every_s) for device in fleet]
    reports = [began_s + device.rng.uniform(0, load.report_every_s) for device in fleet]
    owed = 0.0
    for device in fleet if load.flood else ():
        device.flood = load.flood
        device.make(load.flood or "", BATCH_WINDOWS)
    while not (ended.done() if ended else time.monotonic() - began_s >= load.seconds):
        await asyncio.sleep(TICK_S)
        now_s = time.monotonic()
        for place, device in enumerate(fleet):
            if load.flood is None and due[place] <= now_s:
                device.make("telemetry")
                due[place] += load.telemetry_every_s
            if reports[place] <= now_s:
                device.report(load.report_every_s)
                reports[place] += load.report_every_s
        owed += load.decisions_per_s * (now_s - last_s)
        last_s = now_s
        for _ in range(int(owed)):
            rng.choice(fleet).make("decision")
        owed -= int(owed)


async def _keep_up(fleet: list[SimDevice]) -> None:
    again: dict[str, float] = {}
    while True:
        now_s = time.monotonic()
        for device in fleet:
            device.tick(now_s)
            if device.connected:
                again.pop(device.name, None)
            elif again.setdefault(device.name, now_s + device.rng.uniform(0.2, RECONNECT_S)) <= now_s:
                del again[device.name]
                await _reconnect(device)
        await asyncio.sleep(0.5)


async def _reconnect(device: SimDevice) -> None:
    try:
        await device.connect()
        device.report(60.0)
    except OSError:
        device.drop()


async def _drain(fleet: list[SimDevice]) -> float:
    began_s = time.monotonic()
    while any(device.waiting for device in fleet) and time.monotonic() - began_s < DRAIN_S:
        await asyncio.sleep(TICK_S)
    return time.monotonic() - began_s


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read what to do from stdin, and do it."""
    spec = json.loads(sys.stdin.readline())
    load = Load(**{**spec, "site": Site(**spec["site"])})
    _say({"done": True, **asyncio.run(run(load))})


if __name__ == "__main__":
    main()
