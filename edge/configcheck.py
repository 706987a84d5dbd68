"""Finds what is wrong with a configuration and says where, beyond what its tables say of themselves: pure.

Rules:
- Sources, triggers, segmenters and actuators are checked as they will be opened, without their libraries.
- Every mistake has its place; for what is not known, the nearest known name stands beside it (`edge.mistakes`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from edge.actuators.settings import SETTINGS as ACTUATORS
from edge.mistakes import Mistake, Place, mistakes_in, nearest
from edge.settings import Settings
from edge.sources.settings import SETTINGS as SOURCES
from edge.sources.triggers.settings import SETTINGS as TRIGGERS
from edge.voice.settings import SETTINGS as SEGMENTERS
from edge.voice.settings import usual_segmenter

_EVERY_ADDRESS = ("0.0.0.0", "::", "[::]")  # noqa: S104 - compared with, not listened on
_WITHIN = {"trigger": ("trigger", TRIGGERS), "segments": ("segmenter", SEGMENTERS)}
"""Settings of a source that are a driver of their own: what it is called, and its kinds."""


def driver_mistakes(stations: Any, device: Any = None) -> Iterator[Mistake]:
    """Give what is wrong with the sources and actuators of the stations.

    Args:
        stations: the table `station` as it was read; what is no table is passed over, its own check names it.
        device: the table `device`; its profile says what hears where nothing is named.
    """
    profile = device.get("profile") if isinstance(device, dict) else None
    usual = {"segments": usual_segmenter(str(profile))}
    for name, station in _tables(stations):
        place = ("station", name)
        if isinstance(source := station.get("source"), dict):
            yield from _of_driver((*place, "source"), source, "source", SOURCES, usual)
        if isinstance(actuator := station.get("actuator"), dict):
            yield from _of_driver((*place, "actuator"), actuator, "actuator", ACTUATORS, {})


def port_mistakes(document: Mapping[str, Any]) -> Iterator[Mistake]:
    """Give the places where two parts of one device want to listen on one port."""
    taken: dict[tuple[str, int], Place] = {}
    for place, host, port in _listeners(document):
        others = [at for (other, number), at in taken.items() if number == port and _overlap(host, other)]
        if others:
            yield Mistake(place, f"port {port} is taken by {'.'.join(str(part) for part in others[0])}; use another")
        taken.setdefault((host, port), place)


def _of_driver(
    place: Place, values: Mapping[str, Any], what: str, kinds: Mapping[str, type[Settings]], usual: Mapping[str, str]
) -> Iterator[Mistake]:
    own = dict(values)
    kind = own.pop("kind", usual.get(str(place[-1])))
    if kind is None:
        yield Mistake((*place, "kind"), f"missing; known: {', '.join(sorted(kinds))}")
        return
    if not isinstance(kind, str) or kind not in kinds:
        yield Mistake((*place, "kind"), f"no {what} is called {kind!r}{nearest(str(kind), sorted(kinds))}")
        return
    try:
        kinds[kind].model_validate(own)
    except ValidationError as error:
        yield from mistakes_in(kinds[kind], error, place)
    for key, (inner, inner_kinds) in _WITHIN.items():
        if key in kinds[kind].model_fields and isinstance(own.get(key), dict):
            yield from _of_driver((*place, key), own[key], inner, inner_kinds, usual)


def _listeners(document: Mapping[str, Any]) -> Iterator[tuple[Place, str, int]]:
    local = document.get("local")
    if isinstance(local, dict):
        host, _, port = str(local.get("listen", "127.0.0.1:8480")).rpartition(":")
        if port.isdecimal() and int(port):
            yield ("local", "listen"), host, int(port)
    for name, station in _tables(document.get("station")):
        source = station.get("source")
        if not isinstance(source, dict):
            continue
        place: Place = ("station", name, "source")
        if source.get("kind") == "http":
            yield from _listener((*place, "port"), source, SOURCES["http"])
        trigger = source.get("trigger")
        if isinstance(trigger, dict) and trigger.get("kind") == "line":
            yield from _listener((*place, "trigger", "port"), trigger, TRIGGERS["line"])


def _listener(place: Place, values: Mapping[str, Any], model: type[Settings]) -> Iterator[tuple[Place, str, int]]:
    host, port = (values.get(key, model.model_fields[key].default) for key in ("host", "port"))
    if isinstance(port, int) and port:
        yield place, str(host), port


def _overlap(one: str, other: str) -> bool:
    same = {"localhost": "127.0.0.1"}
    return same.get(one, one) == same.get(other, other) or one in _EVERY_ADDRESS or other in _EVERY_ADDRESS


def _tables(value: Any) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(value, dict):
        return []
    return [(name, table) for name, table in value.items() if isinstance(table, dict)]
