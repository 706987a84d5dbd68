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
from starlette.types import ASGIApp

from cloud import audit, otel
from cloud.alerts import rules
from cloud.alerts.watch import AlertWatch
from cloud.app import DeviceDoor, create_app
from cloud.blobs import BlobStore
from cloud.broker import Broker, EmbeddedBroker, ExternalBroker, takes_next
from cloud.bucket import Bucket
from cloud.cards import Cards
from cloud.clock import Clock, SystemClock
from cloud.collecting import COLLECTOR, Collector
from cloud.conductor import Conductor
from cloud.config import CloudConfig
from cloud.deltas import DeltaStore
from cloud.enrolment import Enrolment, accounts
from cloud.errors import CloudError, ConfigError, ConflictError, UnavailableError
from cloud.external import external_files
from cloud.fleet import Fleet
from cloud.ingest import Ingest
from cloud.link import Link
from cloud.people import People
from cloud.registry import Registry
from cloud.retraining.datasets import MAX_BYTES, Datasets
from cloud.retraining.trigger import Retrainings
from cloud.review import Reviews
from cloud.seat import Seat
from cloud.security import Security
from cloud.services import Services
from cloud.sessions import Sessions
from cloud.shelf import DatabaseShelf
from cloud.store import CloudStore
from cloud.telemetry.keeper import TelemetryKeeper
from cloud.tuf_repository import TufRepository
from cloud.vitals import Vitals

log = logging.getLogger(__name__)

HEAD_EVERY_S = 5.0
"""A log that was cut off is found out, but for the rows of so long."""
REFRESH_CHECK_S = 60.0
RENEW_CHECK_S = 3600.0
"""Certificates are renewed weeks before they end; the operator's own new ones are taken within so long."""
AUTHORITY_CHECK_S = 2.0
"""How soon a copy follows what was decided about authorities."""
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
    telemetry: TelemetryKeeper
    alerts: AlertWatch


@dataclass(frozen=True)
class Addresses:
    """Where the running control plane is found."""

    url: str
    device_url: str
    """Where devices enrol, and take bundles."""
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
    watched = rules.load(config.watch.file)
    config.data_dir.mkdir(parents=True, exist_ok=True)
    store = CloudStore.open(config.database_url)
    _check_copies(config, store)
    security = Security(config, clock, store)
    broker = _broker(config, store, security)
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
    telemetry = TelemetryKeeper(store, clock, config)
    seat = Seat(store, clock)
    enrolment = Enrolment(store, clock, fleet, registry, broker, security, config.broker)
    made, root = config.data_dir / "cards", config.keys_dir / "root.json"
    services = Services(
        cards=Cards(made, config.cards, store, clock, registry, enrolment, root),
        config=config,
        clock=clock,
        store=store,
        fleet=fleet,
        reviews=Reviews(store, clock),
        inputs=inputs,
        registry=registry,
        collector=Collector(store, clock, registry, inputs, config.registry.keep_versions),
        enrolment=enrolment,
        security=security,
        people=People(store, clock),
        sessions=Sessions(store, clock, operator_token),
        watched=watched,
        retrainings=_retrainings(config, store, clock, watched),
        seat=seat,
        vitals=Vitals(store, clock, fleet, ingest, telemetry.rollups),
    )
    alerts = AlertWatch(store, clock, fleet, watched, config.server.public_url)
    return Parts(services, broker, link, ingest, telemetry, alerts)


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
            for spoken in config.plain_text():
                log.warning("plain text: whoever is on the way can read and change %s", spoken)
            listeners = _Listeners.open(config)
            await parts.broker.start()
            stop_sending = _send_figures(parts.services)
            try:
                await _run(parts, listeners, on_ready)
            finally:
                await parts.broker.stop()
                await asyncio.to_thread(stop_sending)
        finally:
            parts.services.store.close()


async def _run(parts: Parts, listeners: "_Listeners", on_ready: Callable[[Addresses], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app, config, seat = create_app(parts.services), parts.services.config, parts.services.seat
    people = _Server(_http_config(app, parts.services.security if config.console_tls else None))
    devices = _Server(_http_config(DeviceDoor(app), parts.services.security))
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(parts.broker.run(), name="broker"),
            group.create_task(parts.link.run(parts.ingest.submit, lambda: _reached(parts.services.fleet)), name="link"),
            group.create_task(parts.ingest.run(), name="ingest"),
            group.create_task(_refresh(parts.services.registry), name="registry"),
            group.create_task(_collect(parts.services), name="collector"),
            group.create_task(Conductor(parts.services).run(), name="conductor"),
            group.create_task(_keep_head(parts.services), name="audit head"),
            group.create_task(parts.telemetry.run(seat), name="telemetry"),
            group.create_task(parts.alerts.run(seat), name="alerts"),
            group.create_task(parts.services.retrainings.run(seat), name="retraining"),
            group.create_task(_renew(parts), name="certificates"),
            group.create_task(keep_authorities(parts), name="authorities"),
        ]
        https = [
            group.create_task(people.serve(sockets=[listeners.people]), name="http"),
            group.create_task(devices.serve(sockets=[listeners.devices]), name="https for devices"),
        ]
        parts.services.retrainings.url = _addresses(parts, listeners).url
        on_ready(_addresses(parts, listeners))
        await stop.wait()
        log.info("stopping")
        people.should_exit = devices.should_exit = True
        await asyncio.gather(*https)
        for task in tasks:
            task.cancel()


def _send_figures(services: Services) -> Callable[[], None]:
    settings = services.config.telemetry
    if not settings.otlp_endpoint:
        return lambda: None
    return otel.start(services.vitals, settings.otlp_endpoint, settings.otlp_every_s)


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


async def _collect(services: Services) -> None:
    """Remove superfluous files now and then, first when a while has passed: devices report after a restart."""
    hours = services.config.registry.collect_hours
    while hours:
        await asyncio.sleep(hours * 3600)
        if not services.seat.is_ours:
            continue
        try:
            done = await asyncio.to_thread(services.collector.collect, who=COLLECTOR, why="nobody can need it")
        except (CloudError, OSError, SQLAlchemyError):
            log.exception("superfluous files were not removed; the next time tries again")
            continue
        if done.freed_bytes:
            log.info("removed %d bundles, %d bytes", len(done.removed), done.freed_bytes)


async def _renew(parts: Parts) -> None:
    while True:
        await asyncio.sleep(RENEW_CHECK_S)
        try:
            if await asyncio.to_thread(parts.services.security.renew):
                log.info("the server shows a new certificate")
                parts.broker.accounts_changed()
        except (ConfigError, OSError) as error:
            log.error("the certificate was not renewed: %s", error)  # noqa: TRY400  (the message says it all)


async def keep_authorities(parts: Parts) -> None:
    """Follow what was decided about authorities, do what is due, take the next into use once the broker takes it."""
    security, broker = parts.services.security, parts.broker
    known, applied = security.authorities, security.authorities.trusted
    by_password = not parts.services.config.broker.uses_certificates
    while True:
        try:
            await asyncio.to_thread(known.keep_up, at_once=by_password)
            if known.trusted != applied:
                await asyncio.to_thread(security.renew)
                broker.accounts_changed()
                applied = known.trusted
            elif known.waiting is not None and (by_password or await takes_next(broker, security)):
                await asyncio.to_thread(known.take_into_use, known.waiting.fingerprint)
                log.info("certificates are signed by the new authority from now on")
        except (CloudError, OSError, SQLAlchemyError) as error:
            log.error("the authorities could not be looked after: %s", error)  # noqa: TRY400  (the message says it all)
        await asyncio.sleep(AUTHORITY_CHECK_S)


def _reached(fleet: Fleet) -> None:
    try:
        count = fleet.republish_all()
    except SQLAlchemyError as error:
        raise OSError(f"the database cannot be read: {error}") from error  # the link tries again
    log.info("published %d desired states again", count)


def _broker(config: CloudConfig, store: CloudStore, security: Security) -> Broker:
    broker = config.broker
    if broker.kind == "embedded":
        return EmbeddedBroker(config.data_dir / "broker", broker, lambda: accounts(store), security)

    def files() -> dict[str, bytes]:
        return external_files(broker.accounts_for, config, store, security, broker.accounts_dir or Path())

    return ExternalBroker(broker, config.broker_password(), files, security)


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
    deltas = DeltaStore(config.data_dir / "deltas", blobs, max_bytes=config.registry.deltas_disk_mb * 2**20)
    return Registry(store, clock, blobs, repository, fleet, deltas)


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


def _retrainings(config: CloudConfig, store: CloudStore, clock: Clock, watched: rules.WatchConfig) -> Retrainings:
    bucket = _bucket(config, "datasets")
    versions = BlobStore(config.data_dir / "datasets", max_bytes=MAX_BYTES, bucket=bucket, keeps_copies=True)
    return Retrainings(
        store,
        clock,
        Datasets(store, clock, versions),
        watched.retrain,
        config.data_dir / "retraining",
        inputs=f"{config.store.blobs.rstrip('/')}/inputs" if config.store.blobs else config.data_dir / "inputs",
        url=config.server.public_url,
    )


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


@dataclass(frozen=True)
class _Listeners:
    """Sockets that are open before anything else begins."""

    people: socket.socket
    devices: socket.socket

    @classmethod
    def open(cls, config: CloudConfig) -> "_Listeners":
        people = _listen(config.server.host, config.server.port, "server.port")
        try:
            return cls(people, _listen(config.device_host, config.device_port, "server.device_port"))
        except ConfigError:
            people.close()
            raise


def _listen(host: str, port: int, setting: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(LISTEN_BACKLOG)  # from here on callers wait instead of being turned away
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}", hint=f"is another program there? set {setting}"
        ) from error
    return listener


def _addresses(parts: Parts, listeners: _Listeners) -> Addresses:
    config = parts.services.config
    people = _url("https" if config.console_tls else "http", config.server.host, listeners.people)
    host, port, _ = parts.broker.endpoint()
    return Addresses(
        config.server.public_url or people,
        _url("https", config.device_host, listeners.devices),
        host,
        port,
        os.getpid(),
    )


def _url(scheme: str, host: str, listener: socket.socket) -> str:
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _http_config(app: ASGIApp, security: Security | None) -> uvicorn.Config:
    context = None if security is None else security.server_context()
    return uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=HTTP_GRACE_S,
        limit_concurrency=1000,
        ssl_context_factory=None if context is None else lambda _config, _usual: context,
    )


class _Server(uvicorn.Server):
    """uvicorn that leaves signals to us."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
