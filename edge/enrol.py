"""Makes the device part of a fleet: one HTTP call, safe to repeat after a power cut at any moment.

Rules:
- The key is made and kept before the first call, so a repeat shows the same key and is granted again.
- The claim is used up by the first key that shows it; whoever steals it later cannot take the name over.
- A device that is enrolled at this control plane already is not enrolled again.
"""

from pathlib import Path

import urllib3
from pydantic import ValidationError

from edge.clock import Clock
from edge.errors import ConfigError, LinkError
from edge.http import connection_pool, for_people
from edge.identity import Identity, device_key, load_identity, public_key_hex, save_identity
from edge.wire.http import EnrolAnswer, EnrolRequest, enrol_statement

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
) -> Identity:
    """Return the device's identity, asking the control plane for it unless it is there already.

    Raises:
        LinkError: the control plane cannot be reached or is busy: try again.
        ConfigError: it refuses, or the request is wrong: a person must look.
        StoreError: the disk does not take key or identity.
    """
    known = load_identity(identity_dir)
    if known is not None and known.device == device and known.cloud_url == cloud_url:
        return known
    key = device_key(identity_dir)
    public_key = public_key_hex(key)
    try:
        request = EnrolRequest(
            device=device,
            claim=claim,
            profile=profile,
            site=site,
            public_key=public_key,
            proof=key.sign(enrol_statement(device, claim, public_key)).hex(),
            models=models,
        )
    except ValidationError as error:
        raise ConfigError(
            f"this device cannot be enrolled: {error}", hint="look at [device] and cloud.claim"
        ) from error
    answer = _ask(cloud_url, request)
    identity = Identity(
        device=answer.device,
        public_key=public_key,
        cloud_url=cloud_url,
        broker=answer.broker,
        token=answer.token,
        enrolled_at_ms=clock.now_ms(),
    )
    save_identity(identity_dir, identity)
    return identity


def _ask(cloud_url: str, request: EnrolRequest) -> EnrolAnswer:
    url = f"{cloud_url.rstrip('/')}/v1/enrol"
    body = request.model_dump_json().encode()
    try:
        with connection_pool().request(
            "POST", url, body=body, headers={"Content-Type": "application/json"}, redirect=False, preload_content=False
        ) as response:
            status, text = response.status, response.read(MAX_ANSWER_BYTES + 1)
    except urllib3.exceptions.LocationValueError as error:
        raise ConfigError(f"cloud.url: {cloud_url!r} is not an address: {error}") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise LinkError(f"{url}: {for_people(error)}", hint="look at the network and at cloud.url") from error
    if status in BUSY_STATUS:
        raise LinkError(f"{url}: the control plane answered {status}: {_words(text)}")
    if status >= 300:
        raise ConfigError(
            f"the control plane refuses to enrol {request.device!r} ({status}): {_words(text)}",
            hint="make a new claim for this device in the console and put it in cloud.claim",
        )
    return _parsed(url, request.device, text)


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
