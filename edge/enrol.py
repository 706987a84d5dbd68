"""Makes the device part of a fleet: one HTTP call, safe to repeat after a power cut at any moment.

Rules:
- The keys are made and kept before the first call, so a repeat shows the same keys and is granted again.
- The claim is used up by the first key that shows it; whoever steals it later cannot take the name over.
- A device that is enrolled at this control plane already is not enrolled again, unless the claim is another one.
- A claim that carries the digest of the control plane's CA is shown to nobody who is not certified by it: the CA is
  fetched first, from whoever answers, and believed only if it has that digest (as `kubeadm join` and step-ca do it).
- A broker in plain text on another machine is refused unless the configuration allows it.
"""

import ssl
import warnings
from pathlib import Path

import urllib3
from pydantic import ValidationError

from edge.addresses import is_private
from edge.clock import Clock
from edge.errors import ConfigError, LinkError
from edge.http import connection_pool, for_people
from edge.identity import (
    Identity,
    certificate_request,
    claim_digest,
    device_key,
    load_identity,
    public_key_hex,
    save_credentials,
    save_identity,
)
from edge.tls import context, context_without_trust, is_the_ca
from edge.wire.http import BrokerAddress, EnrolAnswer, EnrolRequest, claim_parts, csr_statement, enrol_statement

MAX_ANSWER_BYTES = 64 * 1024
"""The answer is a few hundred bytes."""
BUSY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


def enrol(
    cloud_url: str,
    device: str,
    claim: str,
    *,
    profile: str,
    site: str,
    models: list[str],
    identity_dir: Path,
    clock: Clock,
    ca: Path | None = None,
    plain_text: bool = False,
) -> Identity:
    """Return the device's identity, asking the control plane for it unless it is there already.

    Args:
        cloud_url: address of the control plane.
        device: the device's own name.
        claim: the token, with the CA's digest after a dot if it carries one.
        profile: kind of hardware.
        site: where it stands.
        models: names of what its stations run.
        identity_dir: where keys and credentials are kept.
        clock: for the time of enrolment.
        ca: what to verify the control plane by (PEM), instead of what the claim or the system says.
        plain_text: whether a broker without TLS on another machine will do.

    Raises:
        LinkError: the control plane cannot be reached or is busy: try again.
        ConfigError: it refuses, or the request is wrong: a person must look.
        StoreError: the disk does not take key or identity.
    """
    known = load_identity(identity_dir)
    if known is not None and _is_the_one(known, cloud_url, device, claim):
        _check_broker(known.broker, plain_text=plain_text)
        return known
    token, digest = claim_parts(claim)
    request = _request(identity_dir, device, token, profile=profile, site=site, models=models)
    pinned = None
    if ca is None and digest is not None:
        pinned = fetch_ca(cloud_url, digest)
    answer = _ask(cloud_url, request, _context(ca, pinned))
    _check_broker(answer.broker, plain_text=plain_text)
    _check_ca(cloud_url, answer, pinned)
    identity = Identity(
        device=answer.device,
        public_key=request.public_key,
        cloud_url=cloud_url,
        broker=answer.broker,
        token=answer.token,
        enrolled_at_ms=clock.now_ms(),
        claim_digest=claim_digest(claim),
    )
    save_credentials(
        identity_dir, certificate=answer.certificate, ca=pinned or answer.ca, broker_ca=answer.broker_ca or answer.ca
    )
    save_identity(identity_dir, identity)
    return identity


def fetch_ca(cloud_url: str, digest: str) -> str:
    """Return the CA of a claim (PEM). Whoever is asked cannot cheat: another one has another digest.

    Raises:
        LinkError: the control plane cannot be reached or is busy.
        ConfigError: whoever answers has another one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)  # the digest is what verifies
        status, text = _call(f"{cloud_url.rstrip('/')}/v1/ca", "GET", None, context_without_trust())
    pem = text.decode(errors="replace")
    if status in BUSY_STATUS:
        raise LinkError(f"{cloud_url}: the control plane answered {status}")
    if status >= 300 or not is_the_ca(pem, digest):
        raise ConfigError(
            f"{cloud_url}: whoever answers there is not the control plane that the claim is for",
            hint="look at cloud.url, and make a new claim at that control plane",
        )
    return pem


def _is_the_one(known: Identity, cloud_url: str, device: str, claim: str) -> bool:
    same_claim = not claim or known.claim_digest in (None, claim_digest(claim))
    return known.device == device and known.cloud_url == cloud_url and same_claim


def _request(
    identity_dir: Path, device: str, token: str, *, profile: str, site: str, models: list[str]
) -> EnrolRequest:
    key = device_key(identity_dir)
    public_key = public_key_hex(key)
    csr = certificate_request(identity_dir, device)
    try:
        return EnrolRequest(
            device=device,
            claim=token,
            profile=profile,
            site=site,
            public_key=public_key,
            proof=key.sign(enrol_statement(device, token, public_key)).hex(),
            models=models,
            csr=csr,
            csr_proof=key.sign(csr_statement(device, token, public_key, csr)).hex(),
        )
    except ValidationError as error:
        # Not the error itself: it shows what came, and a claim is nobody's business.
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise ConfigError(f"this device cannot be enrolled: {wrong}", hint="look at [device] and cloud.claim") from None


def _context(ca: Path | None, pinned: str | None) -> ssl.SSLContext | None:
    if ca is not None:
        return context(ca=ca)
    return None if pinned is None else context(pem=pinned)


def _check_broker(broker: BrokerAddress, *, plain_text: bool) -> None:
    if not broker.tls and not plain_text and not is_private(broker.host):
        raise ConfigError(
            f"the broker at {broker.host} speaks plain text, which everybody on the way can read and change",
            hint="switch broker.tls on at the control plane; or say cloud.plain_text = true",
        )


def _check_ca(cloud_url: str, answer: EnrolAnswer, pinned: str | None) -> None:
    """Make sure that an answer which came in plain text does not slip in an authority of its own."""
    if pinned is not None and answer.ca is not None and answer.ca.strip() != pinned.strip():
        raise ConfigError(f"{cloud_url}: expected the authority that the claim names, got another one")


def _ask(cloud_url: str, request: EnrolRequest, tls: ssl.SSLContext | None) -> EnrolAnswer:
    url = f"{cloud_url.rstrip('/')}/v1/enrol"
    status, text = _call(url, "POST", request.model_dump_json().encode(), tls)
    if status in BUSY_STATUS:
        raise LinkError(f"{url}: the control plane answered {status}: {_words(text)}")
    if status >= 300:
        raise ConfigError(
            f"the control plane refuses to enrol {request.device!r} ({status}): {_words(text)}",
            hint="make a new claim for this device in the console and put it in cloud.claim",
        )
    return _parsed(url, request.device, text)


def _call(url: str, method: str, body: bytes | None, tls: ssl.SSLContext | None) -> tuple[int, bytes]:
    headers = {} if body is None else {"Content-Type": "application/json"}
    try:
        with connection_pool(tls=tls).request(
            method, url, body=body, headers=headers, redirect=False, preload_content=False
        ) as response:
            return response.status, response.read(MAX_ANSWER_BYTES + 1)
    except urllib3.exceptions.LocationValueError as error:
        raise ConfigError(f"cloud.url: {url!r} is not an address: {error}") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise LinkError(f"{url}: {for_people(error)}", hint="look at the network and at cloud.url") from error


def _parsed(url: str, device: str, text: bytes) -> EnrolAnswer:
    try:
        answer = EnrolAnswer.model_validate_json(text[:MAX_ANSWER_BYTES])
    except ValidationError as error:
        raise ConfigError(
            f"{url}: expected an answer to an enrolment, got {_words(text)!r}",
            hint="is this really the address of a control plane?",
        ) from error
    if answer.device != device:
        raise ConfigError(f"{url}: expected an answer for {device!r}, got one for {answer.device!r}")
    return answer


def _words(text: bytes) -> str:
    return text[:300].decode(errors="replace").strip()
