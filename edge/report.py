"""Builds the `reported` document from the parts of a running device: pure.

Rules:
- The whole state, every time: a report that is lost or repeated changes nothing.
- Everything that a person would ask at the console is here: what serves, what was refused and why, what waits.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from edge.pipeline import Pipeline
from edge.serving import Serving
from edge.slots import Book
from edge.values import StationSettings
from edge.wire.messages import Health, OsReport, Refusal, Reported, SlotReport, StationReport

REPORTED_META = "reported"
"""Where the last report lies in the store."""


@dataclass(frozen=True)
class Who:
    """What never changes while the daemon runs."""

    device: str
    incarnation: str
    boot_id: str
    software: str
    profile: str
    site: str
    interval_s: float


@dataclass(frozen=True)
class StationView:
    """One station as a report sees it."""

    model: str
    settings: StationSettings
    serving: Serving
    pipeline: Pipeline | None
    source_problem: str | None

    @property
    def problem(self) -> str | None:
        """What keeps the station from deciding or acting as it should, or None."""
        unrecorded = self.pipeline.unrecorded if self.pipeline else 0
        no_room = f"{unrecorded} decisions found no room on disk" if unrecorded else None
        return self.source_problem or self.serving.problem or no_room


def report(
    who: Who,
    now_ms: int,
    config_version: int,
    books: dict[str, Book],
    stations: dict[str, StationView],
    refusals: Iterable[Refusal],
    health: Health,
    os: OsReport | None = None,
) -> Reported:
    """Return the device's full state."""
    return Reported(
        device=who.device,
        incarnation=who.incarnation,
        boot_id=who.boot_id,
        sent_at_ms=now_ms,
        config_version=config_version,
        software=who.software,
        profile=who.profile,
        site=who.site,
        slots={model: slot_reports(book) for model, book in books.items()},
        stations={name: station_report(view) for name, view in stations.items()},
        refusals=list(refusals),
        os=os,
        health=health,
        interval_s=who.interval_s,
    )


def slot_reports(book: Book) -> list[SlotReport]:
    """Return the slots of one model, newest last."""
    return [
        SlotReport(bundle=slot.ref, state=slot.state, since_ms=slot.since_ms, reason=slot.reason) for slot in book.slots
    ]


def station_report(view: StationView) -> StationReport:
    """Return how one station does."""
    return StationReport(
        model=view.model,
        mode=view.settings.mode,
        serving=view.serving.serving,
        runtime=view.serving.runtime,
        decisions=view.pipeline.decisions if view.pipeline else 0,
        last_decision_at_ms=view.pipeline.last_decision_at_ms if view.pipeline else None,
        problem=view.problem,
    )
