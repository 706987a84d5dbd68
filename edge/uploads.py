"""Sends kept inputs to the control plane over HTTP, so that people can see what was deferred.

Rules:
- Named by their digest, so sending one twice changes nothing.
- What the network or a busy control plane refuses is tried again with growing pauses, for ever, but behind the
  others: one input that breaks the other side holds up none.
- Sound that no station may send any more is held back, from the next one on.
- What the control plane refuses as such is put aside after a few tries, and an event says so.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import urllib3

from edge.errors import LinkError, StoreError
from edge.http import connection_pool, for_people
from edge.keptinputs import Upload
from edge.store import Store

log = logging.getLogger(__name__)

RETRY_STATUS = frozenset({401, 408, 425, 429, 500, 502, 503, 504})
"""Answers that say nothing about the input: a token that is not known yet, too much at once, a server in trouble."""


@dataclass(frozen=True, slots=True)
class UploadTimes:
    """Waits of the uploads, in seconds."""

    poll_s: float = 0.5
    backoff_min_s: float = 1.0
    backoff_max_s: float = 120.0


class RefusedError(Exception):
    """The control plane does not take this input."""


async def run(
    store: Store,
    *,
    cloud_url: str,
    token: str,
    boot_id: str,
    agreed: Callable[[], frozenset[str]],
    ca: Path | None = None,
    times: UploadTimes | None = None,
) -> None:
    """Send what waits until cancelled.

    Args:
        store: this task's own.
        cloud_url: address of the control plane.
        token: the device's own.
        boot_id: of this start of the daemon.
        agreed: the stations whose sound may be sent now.
        ca: what to verify the control plane by (PEM), instead of what the system trusts.
        times: waits.

    Raises:
        ConfigError: there is no certificate in `ca`.
    """
    times = times or UploadTimes()
    pool = connection_pool(ca=ca)
    failures = 0
    held: frozenset[str] | None = None
    while True:
        try:
            if (now := agreed()) != held:
                store.inputs.hold_sound(now)
                held = now
            sent = await send_next(store, pool, cloud_url=cloud_url, token=token, boot_id=boot_id)
        except (LinkError, StoreError) as error:
            log.info("not uploaded: %s", error)
            pool = connection_pool(
                ca=ca if ca is not None and ca.exists() else None
            )  # whom to believe may have changed
            longest = min(times.backoff_max_s, times.backoff_min_s * 2.0 ** min(failures, 30))
            failures += 1
            await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - jitter
            continue
        failures = 0
        if not sent:
            await asyncio.sleep(times.poll_s)


async def send_next(store: Store, pool: urllib3.PoolManager, *, cloud_url: str, token: str, boot_id: str) -> bool:
    """Send the input whose turn it is; False if none waits.

    Raises:
        LinkError: the control plane cannot be reached or is busy.
        StoreError: the disk failed.
    """
    upload = store.inputs.next()
    found = store.inputs.get(upload.digest) if upload else None
    if upload is None or found is None:
        return False
    try:
        await asyncio.to_thread(_put, pool, f"{cloud_url.rstrip('/')}/v1/inputs/{upload.digest}", token, *found)
    except LinkError:
        store.inputs.move_back(upload.digest)
        raise
    except RefusedError as why:
        _refused(store, upload, str(why), boot_id)
        return True
    store.inputs.mark_uploaded(upload.digest)
    return True


def _put(pool: urllib3.PoolManager, url: str, token: str, data: bytes, media_type: str) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": media_type}
    try:
        answer = pool.request("PUT", url, body=data, headers=headers, redirect=False)
    except urllib3.exceptions.HTTPError as error:
        raise LinkError(f"{url}: {for_people(error)}", hint="look at the network and at cloud.url") from error
    if answer.status in RETRY_STATUS:
        raise LinkError(f"{url}: the control plane answered {answer.status}")
    if answer.status not in (200, 201, 204):
        raise RefusedError(f"the control plane answered {answer.status}: {answer.data[:200].decode(errors='replace')}")


def _refused(store: Store, upload: Upload, why: str, boot_id: str) -> None:
    log.warning("input %s refused: %s", upload.digest[:12], why)
    if store.inputs.refuse(upload.digest, why):
        store.append_event(
            "upload_put_aside", boot_id=boot_id, severity="warning", detail=why, data={"digest": upload.digest}
        )
