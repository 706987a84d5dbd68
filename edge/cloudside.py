"""The device's side towards the cloud: enrols once, then keeps link, uplink, uploads and updates going.

Rules:
- Each task has a store connection of its own; they meet there and nowhere else.
- Enrolment is tried again for ever: a control plane that is away or refuses keeps no station from deciding.
"""

import asyncio
import logging
import random
import ssl
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

from edge import renewal, uplink, uploads
from edge.addresses import is_plain, is_private
from edge.bydelta import Way
from edge.clock import Clock
from edge.config import CloudSection, Config
from edge.enrol import enrol
from edge.errors import ConfigError, LinkError, StoreError
from edge.fetch import fetch_bundle
from edge.identity import Identity, broker_context, ca_file
from edge.link import Link
from edge.linkstate import STOPPED, LinkBook
from edge.mqttsession import LinkTimes
from edge.osfetch import download_system
from edge.osupdate import Fetch as SystemFetch
from edge.reporter import Reporter
from edge.store import Store
from edge.tls import context
from edge.trust import TargetInfo, trusted_target
from edge.update import Fetch, Updater
from edge.uploads import UploadTimes
from edge.values import StationSettings
from edge.wire.base import BundleRef
from edge.wire.messages import Reported
from edge.wire.osimage import os_name

log = logging.getLogger(__name__)

LOOK_S = 0.2
"""How often the link is looked at: a person who pulls a cable sees it at once."""
ENROL_WAIT_MIN_S = 1.0
"""First pause between tries to enrol, doubled each time up to `link.reconnect_max_s`, with jitter; a refusal waits
the longest at once."""


async def stay_connected(
    config: Config,
    cloud: CloudSection,
    open_store: Callable[[], Store],
    updater: Updater,
    reporter: Reporter,
    settings: Callable[[str], StationSettings],
    clock: Clock,
    boot_id: str,
) -> None:
    """Enrol, then run the tasks of the link until cancelled."""
    with open_store() as for_book:
        book = LinkBook(for_book, clock)
        book.note("not enrolled yet")
        try:
            identity, tls = await _enrolled(config, cloud, clock, updater, book)
            _say_plain_text(cloud, identity, updater)
            await _linked(config, cloud, identity, tls, open_store, updater, reporter, settings, clock, boot_id, book)
        finally:
            book.note(STOPPED)


async def _linked(
    config: Config,
    cloud: CloudSection,
    identity: Identity,
    tls: ssl.SSLContext | None,
    open_store: Callable[[], Store],
    updater: Updater,
    reporter: Reporter,
    settings: Callable[[str], StationSettings],
    clock: Clock,
    boot_id: str,
    book: LinkBook,
) -> None:
    with open_store() as for_uplink, open_store() as for_uploads:
        longest_s = config.link.reconnect_max_s
        times = LinkTimes(backoff_max_s=longest_s)
        to_broker = Link(identity.broker, config.device.name, boot_id, clock, times=times, tls=tls)
        async with to_broker as link, asyncio.TaskGroup() as tasks:
            reporter.publish = lambda document: _publish(link, document)
            tasks.create_task(uplink.run(link, for_uplink, device=config.device.name), name="uplink")
            sending = uploads.run(
                for_uploads,
                cloud_url=cloud.url,
                token=identity.token,
                ca=ca_file(_identity_dir(config), cloud.ca),
                boot_id=boot_id,
                agreed=lambda: frozenset(name for name in config.station if settings(name).sound_consent),
                times=UploadTimes(backoff_max_s=longest_s),
            )
            tasks.create_task(sending, name="uploads")
            tasks.create_task(updater.run(link.desired), name="update")
            tasks.create_task(_renewals(config, cloud, identity, link, updater), name="renewal")
            tasks.create_task(_report_after_gaps(link, reporter), name="reports")
            tasks.create_task(_keep_book(link, book), name="link state")


def make_fetch(config: Config, cloud: CloudSection) -> Fetch:
    """Return the way to get a bundle that the trust root vouches for."""
    if cloud.root is None:
        raise ConfigError("cloud.root: expected the TUF root that this device trusts, got nothing")
    root = cloud.root
    trust_dir = config.device.data / "trust"

    async def fetch(ref: BundleRef, path: Path, base: Path | None) -> Way:
        ca = ca_file(_identity_dir(config), cloud.ca)
        return await fetch_bundle(ref, path, base_url=cloud.url, root=root, trust_dir=trust_dir, base=base, ca=ca)

    return fetch


def make_system_fetch(config: Config, cloud: CloudSection, progress: Path) -> SystemFetch | None:
    """Return the way to get an operating system into a slot; None without a trust root.

    Args:
        config, cloud: of this device.
        progress: a file for how much is there.
    """
    if cloud.root is None:
        return None
    root, address = cloud.root, cloud.url.rstrip("/")

    async def fetch(ref: BundleRef, device: BinaryIO) -> None:
        ca, stop = ca_file(_identity_dir(config), cloud.ca), threading.Event()

        def trust(target_path: str) -> TargetInfo:
            folder, url = config.device.data / "trust", f"{address}/tuf/metadata"
            return trusted_target(target_path, metadata_dir=folder, metadata_url=url, root=root, ca=ca)

        targets = f"{address}/tuf/targets"
        work = partial(download_system, ref, device, progress, targets_url=targets, trust=trust, ca=ca, stop=stop)
        running = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()  # the slot is closed only after the thread has ended
            await asyncio.gather(running, return_exceptions=True)
            raise

    return fetch


async def _enrolled(
    config: Config, cloud: CloudSection, clock: Clock, updater: Updater, book: LinkBook
) -> tuple[Identity, ssl.SSLContext | None]:
    """Return the identity and how the broker is met, tried for ever."""
    pause_s, longest_s = ENROL_WAIT_MIN_S, config.link.reconnect_max_s
    while True:
        try:
            return await asyncio.to_thread(_enrol, config, cloud, clock)
        except (LinkError, StoreError) as error:
            log.info("not enrolled: %s", error)
            book.note(f"not enrolled: {error}")
        except ConfigError as error:
            book.note(f"not enrolled: {error}")
            updater.tell_once("enrolment_refused", "alarm", error.for_people())
            pause_s = longest_s
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        pause_s = min(pause_s * 2, longest_s)


def _enrol(config: Config, cloud: CloudSection, clock: Clock) -> tuple[Identity, ssl.SSLContext | None]:
    folder = _identity_dir(config)
    identity = enrol(
        cloud.url,
        config.device.name,
        cloud.claim or "",
        profile=config.device.profile,
        site=config.device.site,
        models=sorted({*(station.model for station in config.station.values()), *_systems(config)}),
        identity_dir=folder,
        clock=clock,
        ca=cloud.ca,
        plain_text=cloud.plain_text,
    )
    context(ca=ca_file(folder, cloud.ca))  # a damaged file is found now, while somebody is told
    return identity, broker_context(folder, cloud.ca) if identity.broker.tls else None


def _systems(config: Config) -> list[str]:
    """Return the name of the systems that this device takes, if it takes any."""
    return [] if config.os.slots == "none" else [os_name(config.device.profile)]


def _say_plain_text(cloud: CloudSection, identity: Identity, updater: Updater) -> None:
    spoken = [cloud.url] if is_plain(cloud.url) else []
    if not identity.broker.tls and not is_private(identity.broker.host):
        spoken.append(f"the broker at {identity.broker.host}")
    if spoken:
        words = f"spoken to in plain text, as cloud.plain_text allows: {', '.join(spoken)}"
        updater.tell_once("plain_text", "warning", words)


def _identity_dir(config: Config) -> Path:
    return config.device.data / "identity"


async def _publish(link: Link, document: Reported) -> None:
    await link.publish("reported", document.model_dump_json().encode(), retain=True)


async def _renewals(config: Config, cloud: CloudSection, identity: Identity, link: Link, updater: Updater) -> None:
    def tell(words: str) -> None:
        updater.tell_once("credentials_renewed", "info", words)

    await renewal.run(link, identity, _identity_dir(config), ca=cloud.ca, tell=tell)


async def _keep_book(link: Link, book: LinkBook) -> None:
    while True:
        book.note(None if link.connected.is_set() else link.problem or "the connection was lost")
        await asyncio.sleep(LOOK_S)


async def _report_after_gaps(link: Link, reporter: Reporter) -> None:
    """Say everything again after each new connection: the broker may have forgotten."""
    known = 0
    while True:
        await link.connected.wait()
        if link.connections != known:
            known = link.connections
            await reporter.send()
        await asyncio.sleep(LOOK_S)
