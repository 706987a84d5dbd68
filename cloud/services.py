"""The parts of a running control plane, as routes, console and conductor get them.

Rules:
- Made once by `cloud.server`; routes reach it by `Depends(services)`, the conductor gets it as its argument.
- Nothing here is a singleton: a test makes its own.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from cloud.alerts.rules import WatchConfig
from cloud.blobs import BlobStore
from cloud.cards import Cards
from cloud.clock import Clock
from cloud.collecting import Collector
from cloud.config import CloudConfig
from cloud.enrolment import Enrolment
from cloud.fleet import Fleet
from cloud.people import People
from cloud.registry import Registry
from cloud.retraining.trigger import Retrainings
from cloud.review import Reviews
from cloud.seat import Seat
from cloud.security import Security
from cloud.sessions import Sessions
from cloud.store import CloudStore
from cloud.vitals import Vitals


@dataclass(frozen=True)
class Services:
    """Everything that a request may need."""

    config: CloudConfig
    clock: Clock
    store: CloudStore
    fleet: Fleet
    reviews: Reviews
    inputs: BlobStore
    registry: Registry
    collector: Collector
    enrolment: Enrolment
    people: People
    sessions: Sessions
    watched: WatchConfig
    retrainings: Retrainings
    seat: Seat
    vitals: Vitals
    security: Security
    cards: Cards


def services(request: Request) -> Services:
    """Return the parts of the control plane that this request belongs to."""
    found = request.app.state.services
    assert isinstance(found, Services)
    return found


Parts = Annotated[Services, Depends(services)]
"""Type of a route's argument that gets the parts."""
