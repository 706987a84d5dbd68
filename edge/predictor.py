"""Speaks to a prediction server: one input, one decision, within one time-out.

Rules:
- One connection is kept open; if it turns out to be broken, the question is put once more on a new one.
- A server that is busy or stopping (429, 503) is left alone for as long as it says, and asked again if there is time.
- What comes back is read up to a limit, and only what is known of it is believed.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import urllib3
from pydantic import ValidationError
from urllib3.exceptions import HTTPError, ProtocolError

from edge.clock import Clock
from edge.errors import LinkError
from edge.http import for_people
from edge.wire.rows import DecisionRow

DECIDE = "/v1/decide"
MAX_ANSWER_BYTES = 256 * 1024
"""A decision of two hundred labels with a long sentence takes a tenth of it."""
MAX_TEXT, MAX_NAME, MAX_WHY = 2000, 200, 300
"""Longest sentence that is kept, name that is sent, and words of a refusal."""
MAX_PAUSE_S = 60.0
"""Longest time that a server may ask to be left alone: beyond it, it is tried again."""
BUSY = (429, 503)
_CHUNK = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """What the server decided."""

    verdict: str
    label: str | None
    text: str | None
    confidence: float | None
    bundle: dict[str, Any] | None
    digest: str | None
    """SHA-256 of what the server was sent; what it looked at may be less, behind masks of its own."""
    latency_ms: dict[str, float]
    """`server`: its own decision; `infer`: its network's share of that."""


class Predictor:
    """A prediction server. Used by one thread."""

    def __init__(
        self, url: str, token_file: Path | None, timeout_s: float, clock: Clock, stop: threading.Event
    ) -> None:
        """Take its address; nothing is opened yet.

        Args:
            url: scheme, host and port.
            token_file: holds the token that it asks for; read anew for each question, so that it may be changed.
            timeout_s: for one question with all its tries.
            clock: for the time-out.
            stop: ends waiting for a busy server.
        """
        self._url, self._token_file, self._timeout_s = url.rstrip("/"), token_file, timeout_s
        self._clock, self._stop = clock, stop
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=1, retries=False)
        self._not_before_s = clock.monotonic_s()

    def ask(self, raw: bytes, name: str, media_type: str) -> Answer:
        """Return the server's decision on an encoded picture or sound.

        Raises:
            LinkError: there was none in time; the message says why, for people.
        """
        until_s = self._clock.monotonic_s() + self._timeout_s
        headers = {"Content-Type": media_type, **self._token()}
        target = f"{self._url}{DECIDE}?name={quote(name[:MAX_NAME], safe='')}"
        why = "it asked to be left alone for longer"
        broken = False
        while self._waited(until_s):
            try:
                status, answer, body = self._post(target, raw, headers, until_s)
            except ProtocolError as error:
                if broken:
                    raise LinkError(f"the connection broke twice: {for_people(error)}") from error
                broken, why = True, "the connection broke"
                continue
            except HTTPError as error:
                raise LinkError(for_people(error)) from error
            if status == 200:
                return read_answer(body)
            why = f"{status}: {_refusal(body)}"
            if status not in BUSY:
                raise LinkError(why)
            self._not_before_s = self._clock.monotonic_s() + pause_s(answer)
        raise LinkError(f"no answer within {self._timeout_s * 1000:.0f} ms: {why}")

    def close(self) -> None:
        """Give the connection back."""
        self._pool.clear()

    def _token(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            return {"Authorization": f"Bearer {self._token_file.read_text().strip()}"}
        except (OSError, UnicodeDecodeError) as error:
            raise LinkError(f"token_file {self._token_file}: cannot be read: {error}") from error

    def _waited(self, until_s: float) -> bool:
        """Wait until the server may be asked; return whether there is time left for it."""
        pause_s = self._not_before_s - self._clock.monotonic_s()
        if self._not_before_s >= until_s or (pause_s > 0 and self._stop.wait(pause_s)):
            return False
        return self._clock.monotonic_s() < until_s

    def _post(
        self, target: str, raw: bytes, headers: Mapping[str, str], until_s: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        left_s = max(0.001, until_s - self._clock.monotonic_s())
        response = self._pool.request(
            "POST",
            target,
            body=raw,
            headers=headers,
            timeout=urllib3.Timeout(total=left_s),
            redirect=False,
            preload_content=False,
        )
        body = b""
        try:
            while part := response.read1(_CHUNK):
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    raise LinkError(f"expected an answer of at most {MAX_ANSWER_BYTES:,} bytes")
                if self._clock.monotonic_s() > until_s:
                    raise LinkError("the answer came too slowly")
        except BaseException:
            response.close()  # half an answer is on it: nobody may use this connection again
            raise
        response.release_conn()
        return response.status, response.headers, body


def read_answer(body: bytes) -> Answer:
    """Return what a server's decision says.

    Raises:
        LinkError: it is no decision.
    """
    try:
        row = DecisionRow.model_validate_json(body)
    except ValidationError as error:
        raise LinkError(f"expected a decision, got {body[:80]!r}") from error
    text = getattr(row, "text", None)  # newer servers say what they heard
    received = getattr(row, "received", None)
    shares = {"server": row.latency_ms.get("total"), "infer": row.latency_ms.get("infer")}
    return Answer(
        verdict=row.verdict,
        label=row.label,
        text=_printable(text, MAX_TEXT) if isinstance(text, str) else None,
        confidence=row.confidence,
        bundle=row.bundle.model_dump() if row.bundle else None,
        digest=received if isinstance(received, str) else row.input.digest,
        latency_ms={name: value for name, value in shares.items() if value is not None},
    )


def pause_s(headers: Mapping[str, str]) -> float:
    """Return how long a busy server wants to be left alone, one second if it does not say so in seconds."""
    said = headers.get("Retry-After", "")
    return min(MAX_PAUSE_S, float(said)) if said.isdecimal() else 1.0


def _refusal(body: bytes) -> str:
    return _printable(body[: 4 * MAX_WHY].decode("utf-8", "replace"), MAX_WHY)


def _printable(text: str, limit: int) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()[:limit]
