"""Fires at each edge of a GPIO line, through libgpiod's own binding: a light barrier wired to the box.

Rules:
- The kernel notes each edge as it comes, so none is missed between two looks; it also debounces.
- `GpioEdges` is the only part that needs a chip.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import gpiod
from gpiod.line import Bias, Edge

from edge.settings import read_settings
from edge.sources.triggers.settings import GpioSettings
from edge.sources.triggers.watching import WatchingTrigger

if TYPE_CHECKING:
    from edge.clock import Clock

_WAIT_S = 0.1


class GpioEdges:
    """One line of a chip, asked for its edges."""

    def __init__(self, settings: GpioSettings) -> None:
        """Ask for the line; raises OSError if the chip or the line is not there or taken."""
        wanted = gpiod.LineSettings(
            edge_detection=Edge.RISING if settings.edge == "rising" else Edge.FALLING,
            bias=Bias[settings.bias.upper()],
            debounce_period=timedelta(milliseconds=settings.debounce_ms),
        )
        try:
            self._request = gpiod.request_lines(str(settings.chip), {settings.line: wanted}, consumer="lineside")
        except ValueError as error:
            raise OSError(str(error)) from error  # no line of that name

    def firings(self) -> int:
        if not self._request.wait_edge_events(timedelta(seconds=_WAIT_S)):
            return 0
        return len(self._request.read_edge_events())

    def close(self) -> None:
        self._request.release()


def open_trigger(settings: Mapping[str, Any], *, clock: "Clock") -> WatchingTrigger:  # noqa: ARG001
    """Make the trigger; its settings are `GpioSettings`.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """
    checked = read_settings(GpioSettings, settings, where="trigger gpio")
    return WatchingTrigger("gpio", lambda: GpioEdges(checked))
