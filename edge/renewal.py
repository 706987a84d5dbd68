"""Keeps whom the device believes, and the certificate that it shows, as the control plane wants them now.

Rules:
- Both are taken from whom the device trusts already, by HTTPS; nothing that comes in plain text changes whom it trusts.
- It asks at its start, some times a day, and while the broker refuses it: the certificate that counts there may be one
  whose answer a power cut kept from it.
- The key stays; only the certificate is another. What was there is replaced file by file, each whole, and any mixture
  is mended by the next look: new trust holds what was trusted before.
- Nothing here stops the device: what goes wrong is tried again.
"""

import asyncio
import hashlib
import logging
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import urllib3
from pydantic import ValidationError

from edge.errors import ConfigError, LinkError, StoreError
from edge.http import connection_pool, for_people
from edge.identity import (
    BROKER_CA_FILE,
    CA_FILE,
    CERTIFICATE_FILE,
    Identity,
    broker_context,
    ca_file,
    certificate_request,
    device_key,
    save_credentials,
)
from edge.link import Link
from edge.tls import context
from edge.wire.http import Renewal, RenewRequest, Trust, renew_statement

log = logging.getLogger(__name__)

Answer = TypeVar("Answer", Trust, Renewal)
MAX_ANSWER_BYTES = 256 * 1024
"""A handful of certificates."""


@dataclass(frozen=True)
class RenewalTimes:
    """How long between two looks."""

    look_s: float = 6 * 3600.0
    """While all is well; an authority is replaced over weeks."""
    refused_s: float = 60.0
    """While there is no connection to the broker, doubled each time up to `look_s`."""
    watch_s: float = 1.0


async def run(
    link: Link,
    identity: Identity,
    folder: Path,
    *,
    ca: Path | None,
    tell: Callable[[str], None],
    times: RenewalTimes | None = None,
) -> None:
    """Look until cancelled; the link's next connection is made with what was found.

    Args:
        link: to the broker.
        identity: who this device is.
        folder: of its keys and credentials.
        ca: what the control plane is verified by, if the configuration says so.
        tell: what to do with the news that something was replaced, in words.
        times: between looks.
    """
    times, refused = times or RenewalTimes(), 0
    while True:
        try:
            news = await asyncio.to_thread(look, identity, folder, ca)
            if news:
                link.tls = broker_context(folder, ca) if identity.broker.tls else None
                tell(f"the control plane has given this device {' and '.join(news)}")
        except (LinkError, StoreError, ConfigError) as error:
            log.info("whom to trust was not asked: %s", error)
        refused = await _until_it_is_time(link, times, refused)


def look(identity: Identity, folder: Path, ca: Path | None) -> list[str]:
    """Ask once; return what was replaced, in words.

    Raises:
        LinkError: the control plane cannot be reached, or is not believed.
        ConfigError: its answer cannot be used.
        StoreError: the disk does not take it.
    """
    if not identity.cloud_url.startswith("https:"):
        return []
    believed = ca_file(folder, ca)
    trust = _read(Trust, _call(identity, "GET", "/v1/trust", None, believed))
    certificate, news = _text(folder / CERTIFICATE_FILE), []
    if (_text(folder / CA_FILE), _text(folder / BROKER_CA_FILE)) != (trust.ca, trust.broker_ca):
        for pem in (trust.ca, trust.broker_ca):
            context(pem=pem)  # what is no certificate must not take the place of one
        save_credentials(folder, certificate=certificate, ca=trust.ca, broker_ca=trust.broker_ca)
        news.append("others to trust")
    if certificate is not None and _is_to_renew(trust, certificate):
        renewed = _renewed(identity, folder, ca_file(folder, ca))
        save_credentials(folder, certificate=renewed, ca=trust.ca, broker_ca=trust.broker_ca)
        news.append("another certificate")
    return news


async def _until_it_is_time(link: Link, times: RenewalTimes, refused: int) -> int:
    """Wait; return how many looks in a row were made without a connection."""
    calm_s = times.look_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
    soon_s = min(times.refused_s * 2.0 ** min(refused, 20), calm_s)
    waited_s, without_s = 0.0, 0.0
    while waited_s < calm_s and without_s < soon_s:
        await asyncio.sleep(times.watch_s)
        waited_s += times.watch_s
        without_s = 0.0 if link.connected.is_set() else without_s + times.watch_s
    return 0 if link.connected.is_set() else refused + 1


def _is_to_renew(trust: Trust, certificate: str) -> bool:
    mine = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.strip())).hexdigest()
    return trust.renew or trust.certificate not in (None, mine)


def _text(path: Path) -> str | None:
    return path.read_text("ascii") if path.exists() else None


def _renewed(identity: Identity, folder: Path, believed: Path | None) -> str:
    csr = certificate_request(folder, identity.device)
    proof = device_key(folder).sign(renew_statement(identity.device, csr)).hex()
    body = RenewRequest(csr=csr, proof=proof).model_dump_json().encode()
    return _read(Renewal, _call(identity, "POST", "/v1/renew", body, believed)).certificate


def _call(identity: Identity, method: str, path: str, body: bytes | None, believed: Path | None) -> bytes:
    url = f"{identity.cloud_url.rstrip('/')}{path}"
    headers = {"Authorization": f"Bearer {identity.token}"}
    headers |= {} if body is None else {"Content-Type": "application/json"}
    try:
        with connection_pool(ca=believed).request(
            method, url, body=body, headers=headers, redirect=False, preload_content=False
        ) as response:
            status, text = response.status, response.read(MAX_ANSWER_BYTES)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise LinkError(f"{url}: {for_people(error)}") from error
    if status != 200:
        raise LinkError(f"{url}: the control plane answered {status}")
    return text


def _read(kind: type[Answer], text: bytes) -> Answer:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise LinkError(f"expected {kind.__name__} from the control plane, got {text[:100]!r}") from error
