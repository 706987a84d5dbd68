"""Puts the updates of the operating system together for a device, from its configuration and stations.

Rules:
- What a system is judged by is what keeps stations from deciding: their own problem, or that they do not turn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edge.clock import Clock
from edge.config import Config
from edge.errors import ConfigError
from edge.files import make_directory
from edge.osrules import Quiet
from edge.osslots import open_slots
from edge.osupdate import Fetch, Line, Rules, Systems, Tell
from edge.slotfile import SlotFile
from edge.station import Station
from edge.store import Store
from edge.wire.base import Name
from edge.wire.osimage import os_name

FOLDER = "os"
"""Below the device's data; units of the image look there for what is on trial."""
PROGRESS = "download.json"


@dataclass(frozen=True)
class Parts:
    """What a running daemon gives."""

    config: Config
    stations: Sequence[Station]
    stuck: Callable[[], list[str]]
    store: Store
    clock: Clock
    tell: Tell
    fetch: Callable[[Path], Fetch | None]
    """Gives the way to get a system, with a file for how much of it is there; None without a control plane."""


def make_systems(parts: Parts) -> Systems:
    """Return what replaces the operating system of this device.

    Raises:
        ConfigError: it has no slots for two, or its profile names none.
    """
    device, section = parts.config.device, parts.config.os
    folder = device.data / FOLDER
    make_directory(folder)
    quiet = Quiet(section.idle_s, section.window, section.wait_max_s)
    name = _name(device.profile)
    book = SlotFile(device.data, name, parts.clock)
    if book.problem:
        parts.tell("slots_damaged", "alarm", book.problem, {})
    return Systems(
        name,
        device.profile,
        open_slots(section.slots, folder, device.profile),
        book,
        Rules(section.tries, section.probation_s, section.deadline_s, quiet),
        Line(lambda: _decisions(parts.stations), lambda: _trouble(parts.stations, parts.stuck())),
        parts.store,
        parts.clock,
        parts.tell,
        parts.fetch(folder / PROGRESS),
    )


def _name(profile: str) -> str:
    name = os_name(profile)
    try:
        return TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise ConfigError(f"device.profile {profile!r} gives no name for systems: {name!r}") from error


def _decisions(stations: Sequence[Station]) -> int:
    return sum(view.pipeline.decisions for view in (station.view() for station in stations) if view.pipeline)


def _trouble(stations: Sequence[Station], stuck: list[str]) -> dict[str, str]:
    problems = {station.name: station.view().problem for station in stations}
    found = {name: problem for name, problem in problems.items() if problem}
    return dict.fromkeys(stuck, "does not turn") | found
