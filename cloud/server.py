"""Puts the control plane together and runs it: broker, link, ingest, registry, conductor and HTTP in one event loop.

Rules:
- Here alone concrete parts meet; everything else gets what it needs passed in.
- One process per data folder: a second one is refused before it touches anything.
- A part that ends by itself ends the whole with its error; whoever supervises the process starts it again.
- Stopping in order loses nothing, and neither does kill -9: what was not acknowledged is sent again.
"""

import asyncio
import fcntl
import logging
import os
import random
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from cloud import audit
from cloud.app import create_app
from cloud.blobs import BlobStore
from cloud.broker import Broker, EmbeddedBroker, ExternalBroker
from cloud.bucket import Bucket
from cloud.clock import Clock, SystemClock
from cloud.conductor import Conductor
from cloud.config import CloudConfig
from cloud.enrolment import Enrolment, accounts
from cloud.errors import ConfigError, ConflictError, UnavailableError
from cloud.fleet import Fleet
from cloud.ingest import Ingest
from cloud.link import Link
from cloud.people import People
from cloud.registry import Registry
from cloud.review import Reviews
from cloud.services import Services
from cloud.sessions import Sessions
from cloud.shelf import DatabaseShelf
from cloud.store import CloudStore
from cloud.tuf_repository import TufRepository

log = logging.getLogger(__name__)

HEAD_EVERY_S = 5.0
"""A log that was cut off is found out, but for the rows of so long."""
REFRESH_CHECK_S = 60.0
LISTEN_BACKLOG = 2048
HTTP_GRACE_S = 3
"""How long open requests (and the console's live streams) may hold up stopping."""


@dataclass(frozen=True)
class Parts:
    """The concrete parts of one control plane."""

    services: Services
    broker: Broker
    link: Link
    ingest: Ingest


@dataclass(frozen=True)
class Addresses:
    """Where the running control plane is found."""

    url: str
    broker_host: str
    broker_port: int
    pid: int


def build(config: CloudConfig, clock: Clock) -> Parts:
    """Make all parts; nothing runs yet.

    Raises:
        ConfigError: a setting is wrong.
        UnavailableError: the database cannot be opened.
    """
    operator_token = config.operator_token()  # refuses an address that others reach without one
    config.data_dir.mkdir(parents=True, exist_ok=True)
    store = CloudStore.open(config.database_url)
    _check_copies(config, store)
    broker = _broker(config, store)
    link = Link(broker.login, random.Random())  # noqa: S311  (spreads reconnects)
    fleet = Fleet(store, clock, link)
    registry = _registry(config, store, clock, fleet)
    inputs = BlobStore(
        config.data_dir / "inputs",
        max_bytes=config.limits.input_bytes,
        max_total_bytes=config.limits.inputs_disk_mb * 2**20,
        bucket=_bucket(config, "inputs"),
    )
    ingest = Ingest(store, inputs, clock, link, config.ingest)
    services = Services(
        config=config,
        clock=clock,
        store=store,
        fleet=fleet,
        reviews=Reviews(store, clock),
        inputs=inputs,
        registry=registry,
        enrolment=Enrolment(store, clock, fleet, registry, broker),
        people=People(store, clock),
        sessions=Sessions(store, clock, operator_token),
    )
    return Parts(services, broker, link, ingest)


async def serve(config: CloudConfig, on_ready: Callable[[Addresses], None], clock: Clock | None = None) -> None:
    """Run the control plane until SIGTERM or SIGINT.

    Raises:
        CloudError: it cannot start, and why.
    """
    with _only_one(config.data_dir):
        parts = build(config, clock or SystemClock())
        try:
            if not _open(parts.services.registry):
                log.warning(
                    "no keys in %s: bundles cannot be published; see `lineside-cloud keys init`", config.keys_dir
                )
            listener = _listen(config)
            await parts.broker.start()
            try:
                await _run(parts, listener, on_ready)
            finally:
                await parts.broker.stop()
        finally:
            parts.services.store.close()


async def _run(parts: Parts, listener: socket.socket, on_ready: Callable[[Addresses], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = _Server(_http_config(parts))
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(parts.broker.run(), name="broker"),
            group.create_task(parts.link.run(parts.ingest.submit, lambda: _reached(parts.services.fleet)), name="link"),
            group.create_task(parts.ingest.run(), name="ingest"),
            group.create_task(_refresh(parts.services.registry), name="registry"),
            group.create_task(Conductor(parts.services).run(), name="conductor"),
            group.create_task(_keep_head(parts.services), name="audit head"),
        ]
        http = group.create_task(server.serve(sockets=[listener]), name="http")
        host, port, _ = parts.broker.endpoint()
        on_ready(Addresses(_url(parts.services.config, listener), host, port, os.getpid()))
        await stop.wait()
        log.info("stopping")
        server.should_exit = True
        await http
        for task in tasks:
            task.cancel()


def _open(registry: Registry) -> bool:
    try:
        return registry.open()
    except SQLAlchemyError as error:  # another copy's turn takes long, or the database has just gone: start again
        raise UnavailableError(f"the signed lists cannot be opened: {error}") from error


async def _keep_head(services: Services) -> None:
    file = audit.HeadFile(services.config.data_dir)

    def keep() -> None:
        with services.store.read() as connection:
            file.keep(audit.head(connection))

    while True:
        try:
            await asyncio.to_thread(keep)
        except (OSError, SQLAlchemyError) as error:
            log.warning("the head of the audit log was not written down: %s", error)
        await asyncio.sleep(HEAD_EVERY_S)


async def _refresh(registry: Registry) -> None:
    while True:
        await asyncio.to_thread(registry.repository.refresh)
        await asyncio.sleep(REFRESH_CHECK_S)


def _reached(fleet: Fleet) -> None:
    try:
        count = fleet.republish_all()
    except SQLAlchemyError as error:
        raise OSError(f"the database cannot be read: {error}") from error  # the link tries again
    log.info("published %d desired states again", count)


def _broker(config: CloudConfig, store: CloudStore) -> Broker:
    if config.broker.kind == "external":
        return ExternalBroker(config.broker, config.broker_password())
    return EmbeddedBroker(config.data_dir / "broker", config.broker, lambda: accounts(store))


def _registry(config: CloudConfig, store: CloudStore, clock: Clock, fleet: Fleet) -> Registry:
    folder = config.data_dir / "tuf"
    repository = TufRepository(
        folder,
        config.keys_dir,
        clock,
        timestamp_life=timedelta(hours=config.registry.timestamp_hours),
        snapshot_life=timedelta(days=config.registry.snapshot_days),
        shelf=DatabaseShelf(folder, store) if store.is_shared else None,
    )
    bucket, max_bytes = _bucket(config, "bundles"), config.limits.bundle_bytes
    blobs = BlobStore(config.data_dir / "bundles", max_bytes=max_bytes, bucket=bucket, keeps_copies=True)
    return Registry(store, clock, blobs, repository, fleet)


def _bucket(config: CloudConfig, folder: str) -> Bucket | None:
    return Bucket(config.store.blobs, config.store.blobs_options, folder) if config.store.blobs else None


def _check_copies(config: CloudConfig, store: CloudStore) -> None:
    """Refuse what would lose or hide things with several copies."""
    if not config.broker.share:
        return
    if config.broker.kind != "external":
        raise ConfigError("broker.share: several copies need one external broker", hint='set broker.kind = "external"')
    if not store.is_shared:
        raise ConfigError("broker.share: several copies need one PostgreSQL", hint="set store.url")
    if not config.store.blobs:
        log.warning("store.blobs is empty: unless %s is shared by all copies, inputs are at one only", config.data_dir)


@contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("w")
    except OSError as error:
        raise ConfigError(f"store.data_dir: cannot use {data_dir}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(
                f"another control plane runs on {data_dir}", hint="stop it first, or set store.data_dir"
            ) from error
        yield


def _listen(config: CloudConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.server.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.server.host, config.server.port))
        listener.listen(LISTEN_BACKLOG)  # from here on callers wait instead of being turned away
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {config.server.host}:{config.server.port}: {error.strerror}",
            hint="is another program there? set server.port",
        ) from error
    return listener


def _url(config: CloudConfig, listener: socket.socket) -> str:
    host = f"[{config.server.host}]" if ":" in config.server.host else config.server.host
    return config.server.public_url or f"http://{host}:{listener.getsockname()[1]}"


def _http_config(parts: Parts) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(parts.services),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=HTTP_GRACE_S,
        limit_concurrency=1000,
    )


class _Server(uvicorn.Server):
    """uvicorn that leaves signals to us."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
