"""Posts actions to an address of the plant's own software, signed, from the record, until it has taken them.

Rules:
- The queue is the record: an action is pending from the transaction that recorded its decision until its outcome is
  recorded. So nothing falls between, and a restart goes on where the last run was.
- In order, one at a time. What the receiver may mend (no answer, 401, 403, 404, 408, 409, 425, 429, 5xx) is tried again
  with back-off; another 4xx, or `expire_h` gone by, is a failure, recorded and told.
- Signed as Standard Webhooks has it (standardwebhooks.com): `webhook-id` is the same for every try of one action, so
  that the receiver knows a repetition; `webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over
  `id.timestamp.body`.
- For software that books parts. It may come late, so it must not move them; the body says when the decision was made.
"""

import base64
import hashlib
import hmac
import json
import logging
import random
import socket
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import urllib3

from edge.actuators.hysteresis import Hysteresis
from edge.actuators.interface import ActionStore, Place
from edge.actuators.settings import WebhookSettings
from edge.errors import ActuatorError, ConfigError, StoreError
from edge.http import for_people
from edge.settings import read_settings
from edge.wire.rows import DecisionRow, OutcomeRow

if TYPE_CHECKING:
    from edge.clock import Clock

log = logging.getLogger(__name__)

BACKOFF_MIN_S = 0.5
LOOK_S = 5.0
"""How often the record is looked at without being woken."""
BATCH = 100
RETRY_STATUS = frozenset({401, 403, 404, 408, 409, 425, 429})
"""Refusals of the sender, the place or the moment, not of this action."""
MS_PER_H = 3_600_000
JOIN_S = 5.0

Result = Literal["taken", "refused", "again"]


class Poster:
    """Signs and posts one body at a time."""

    def __init__(self, settings: WebhookSettings, secret: bytes, clock: "Clock") -> None:
        self._url, self._secret, self._clock = settings.url, secret, clock
        timeout = urllib3.Timeout(total=settings.timeout_ms / 1000)
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=2, timeout=timeout, retries=False)

    def post(self, identity: str, entry: dict[str, Any]) -> tuple[Result, str]:
        """Return what the receiver made of it, and that in words."""
        body = json.dumps(entry).encode()
        at_s = str(self._clock.now_ms() // 1000)
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": identity,
            "webhook-id": identity,
            "webhook-timestamp": at_s,
            "webhook-signature": f"v1,{signature(self._secret, identity, at_s, body)}",
        }
        try:
            answer = self._pool.request("POST", self._url, body=body, headers=headers, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            return "again", f"{self._url}: {for_people(error)}"
        if 200 <= answer.status < 300:
            return "taken", f"answered {answer.status}"
        words = f"{self._url}: answered {answer.status}: {answer.data[:200].decode(errors='replace')}"
        final = 400 <= answer.status < 500 and answer.status not in RETRY_STATUS
        return ("refused" if final else "again"), words

    def close(self) -> None:
        self._pool.clear()


class WebhookActuator:
    """Wakes the thread that delivers what is pending in the record."""

    kind = "webhook"
    confirms_later = True

    def __init__(self, settings: WebhookSettings, secret: bytes, clock: "Clock", place: Place) -> None:
        if place.open_store is None:
            raise ConfigError("actuator webhook delivers from a device's record, and there is none here")
        self.deadline_ms = settings.timeout_ms
        self._poster = Poster(settings, secret, clock)
        self._place = place
        self._calls = 0
        self._closed = False
        self._delivery = Delivery(settings, self._poster, place.open_store(), clock, place)
        self._delivery.start()

    def look(self) -> str | None:
        return self._delivery.problem

    def act(self, decision: DecisionRow) -> str | None:  # noqa: ARG002 - it lies in the record
        self._refuse_closed()
        self._delivery.wake()
        return "queued"

    def safe(self, why: str) -> None:
        self._tell("safe", why)

    def stop(self, why: str) -> None:
        self._tell("stop", why)

    def release(self) -> None:
        self._tell("release", "acknowledged")

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._delivery.close()
            self._poster.close()

    def _tell(self, action: str, why: str) -> None:
        """Post what has no decision on record: once, now."""
        self._refuse_closed()
        self._calls += 1
        place = self._place
        entry = {"device": place.device, "station": place.station, "decision": None, "action": action, "why": why}
        result, words = self._poster.post(f"{place.boot_id}-{place.station}-{self._calls}", entry)
        if result != "taken":
            raise ActuatorError(words)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ActuatorError("the actuator is closed", retry=False)


class Delivery:
    """The thread that takes pending actions of one station from the record to the receiver."""

    def __init__(
        self, settings: WebhookSettings, poster: Poster, store: ActionStore, clock: "Clock", place: Place
    ) -> None:
        self._s, self._poster, self._store, self._clock, self._place = settings, poster, store, clock, place
        self._trouble = Hysteresis(clear_after=1)
        self._tries = 0
        self.problem: str | None = None
        self._work, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"webhook-{place.station}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something new in the record."""
        self._work.set()

    def close(self) -> None:
        """End after the try that is under way."""
        self._stop.set()
        self._work.set()
        self._thread.join(self._s.timeout_ms / 1000 + JOIN_S)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._work.clear()
                try:
                    pause_s = self._deliver_pending()
                except StoreError as error:
                    self.problem, pause_s = str(error), LOOK_S
                except Exception as error:
                    # Nobody foresaw it: what is pending stays so, and is tried again. A delivery never dies in silence.
                    log.exception("the delivery failed")
                    self.problem, pause_s = f"{type(error).__name__}: {error}", LOOK_S
                if pause_s:
                    self._stop.wait(pause_s)
                else:
                    self._work.wait(LOOK_S)
        finally:
            self._store.close()

    def _deliver_pending(self) -> float:
        """Deliver until nothing is pending (0) or a try failed: then return the pause before the next, in seconds."""
        while pending := self._store.pending_actions(self._place.station, limit=BATCH):
            for seq in pending:
                if self._stop.is_set():
                    return 0.0
                if not self._deliver(seq):
                    self._tries += 1
                    longest = min(self._s.backoff_max_s, BACKOFF_MIN_S * 2.0 ** min(self._tries, 30))
                    return random.uniform(longest / 2, longest)  # noqa: S311 - jitter
                self._tries = 0
        return 0.0

    def _deliver(self, seq: int) -> bool:
        """Try one action; return whether it is settled."""
        row = self._store.decision(seq)
        if row is None:
            self._settle(seq, "failed", "its decision cannot be read any more", 0.0)
            return True
        started_s = time.perf_counter()
        result, words = self._poster.post(identity(row, self._store.incarnation), self._entry(row))
        took_ms = (time.perf_counter() - started_s) * 1000
        if result == "again" and self._clock.now_ms() - row.at_ms < self._s.expire_h * MS_PER_H:
            self._failing(words)
            return False
        if result == "taken":
            self._settle(seq, "done", words, took_ms)
            self._working()
        else:
            why = words if result == "refused" else f"not taken within {self._s.expire_h:g} h: {words}"
            self._settle(seq, "failed", why, took_ms)
            self._failing(why)
        return True

    def _entry(self, row: DecisionRow) -> dict[str, Any]:
        return {
            "device": self._place.device,
            "station": row.station,
            "decision": row.seq,
            "verdict": row.verdict,
            "action": row.action,
            "label": row.label,
            "confidence": row.confidence,
            "reason": row.reason,
            "input": row.input.name,
            "input_digest": row.input.digest,
            "decided_at_ms": row.at_ms,
        }

    def _settle(self, seq: int, state: Literal["done", "failed"], detail: str, took_ms: float) -> None:
        now_ms = self._clock.now_ms()
        self._store.append_outcome(
            OutcomeRow(
                seq=1,
                decision_seq=seq,
                at_ms=now_ms,
                state=state,
                actuator="webhook",
                detail=detail,
                latency_ms=took_ms,
            )
        )

    def _failing(self, why: str) -> None:
        self.problem = why
        if self._trouble.failed():
            self._tell("actuator_failure_raised", "alarm", why)

    def _working(self) -> None:
        self.problem = None
        if self._trouble.worked():
            self._tell("actuator_failure_cleared", "info", "the receiver takes actions again")

    def _tell(self, name: str, severity: Literal["info", "alarm"], detail: str) -> None:
        place, data = self._place, {"actuator": "webhook"}
        self._store.append_event(
            name, boot_id=place.boot_id, severity=severity, station=place.station, detail=detail, data=data
        )


def identity(row: DecisionRow, incarnation: str) -> str:
    """Return what names a decision's action for ever, also after the record was damaged and salvaged."""
    before = (row.model_extra or {}).get("salvaged_from")
    if isinstance(before, dict):
        return f"{before.get('incarnation')}-{before.get('seq')}"
    return f"{incarnation}-{row.seq}"


def signature(secret: bytes, identity: str, at_s: str, body: bytes) -> str:
    """Return the base64 of HMAC-SHA256 over `identity.at_s.body`."""
    signed = f"{identity}.{at_s}.".encode() + body
    return base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def open_actuator(settings: Mapping[str, Any], *, clock: "Clock", place: Place) -> WebhookActuator:
    """Begin to deliver; a receiver that is not there is waited for.

    Raises:
        ConfigError: a setting is unknown or wrong, or the secret is missing or short.
    """
    read = read_settings(WebhookSettings, settings, where="actuator webhook")
    return WebhookActuator(read, _secret(read), clock, place)


def probe(settings: Mapping[str, Any]) -> str:
    """Return whether somebody listens at the address; nothing is posted.

    Raises:
        ConfigError: a setting is unknown or wrong, or the secret is missing or short.
        ActuatorError: nobody listens.
    """
    read = read_settings(WebhookSettings, settings, where="actuator webhook")
    _secret(read)
    url = urllib3.util.parse_url(read.url)
    address = url.host or "", url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection(address, read.timeout_ms / 1000).close()
    except OSError as error:
        raise ActuatorError(f"{read.url}: {error.strerror or error}", hint="what is decided waits for it") from error
    return f"somebody listens at {address[0]}:{address[1]}"


def _secret(read: WebhookSettings) -> bytes:
    try:
        secret = read.secret_file.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"actuator webhook: secret_file: cannot read {read.secret_file}: {error.strerror}",
            hint=f"openssl rand -base64 32 > {read.secret_file}",
        ) from error
    if len(secret) < 24:
        raise ConfigError(f"actuator webhook: {read.secret_file}: expected at least 24 characters, got {len(secret)}")
    return secret
