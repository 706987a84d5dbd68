"""`lineside-edge check`: looks at everything that a device needs before it runs, each ok or not with what to do.

Rules:
- Every check is tried, whatever the others found; nothing moves and nothing is decided.
- Exit codes: 0 all ok, 1 something is not.
"""

import os
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple, TextIO
from urllib.parse import urlsplit

from edge.clock import SystemClock
from edge.config import CloudSection, Config, StationSection, load_config
from edge.errors import LinesideError, SourceError
from edge.processor import choose

LOW_DISK_BYTES = 512 * 2**20
"""Less does not hold a day of deferred pictures."""
FIRST_WINDOW_S = 5.0
"""Longest wait for a source's first picture or sound; a camera needs a second or two."""
REACH_S = 5.0
_CONSENT_HINT = "set sound_consent = true once those who are heard have agreed"
_INLINE = (
    "inline: a network that crashes ends the daemon, one that hangs holds it until systemd's watchdog ends both, "
    "what it leaks stays until a restart"
)
_INLINE_HINT = 'isolation = "process" contains all three; inline is for tiny networks that are known to be well'
_HELD = ("camera", "http", "microphone")
"""Sources that only one process can have at a time."""
SENSIBLE_YEAR = 2025
"""A clock before this was never set."""
CLOCK_OFF_S = 60.0
"""A clock that is further off tells people wrong times, and takes what is signed for expired."""


class Found(NamedTuple):
    """The outcome of one check; `ok` None stands for "cannot be told now", which is not a fault."""

    ok: bool | None
    what: str
    words: str
    hint: str = ""


def run(config_path: Path, *, out: TextIO | None = None) -> int:
    """Print a line a check; return the exit code."""
    bad = 0
    for found in checks(config_path):
        mark = {True: "ok    ", False: "NOT OK", None: "–     "}[found.ok]
        print(f"{mark}  {found.what}: {found.words}", file=out, flush=True)
        if found.hint and found.ok is not True:
            print(f"        → {found.hint}", file=out)
        bad += found.ok is False
    print(f"{bad} not ok" if bad else "all ok", file=out)
    return 1 if bad else 0


def checks(config_path: Path) -> Iterator[Found]:
    """Give each check's outcome as soon as it is known."""
    try:
        config = load_config(config_path)
    except LinesideError as error:
        yield Found(False, "config", str(error), error.hint)
        return
    yield Found(True, "config", str(config_path))
    yield _tried("disk", lambda: _disk(config.device.data))
    yield _tried("record", lambda: _record(config))
    yield _clock()
    if config.device.cores is not None:
        yield _cores(config.device.cores)
    for name, station in config.station.items():
        yield _tried(f"{name}: bundle", lambda station=station: _bundle(config, station))  # type: ignore[misc]
        if station.isolation == "inline":
            yield Found(None, f"{name}: isolation", _INLINE, _INLINE_HINT)
        yield _tried(f"{name}: source", lambda name=name, station=station: _source(config, name, station))  # type: ignore[misc]
        yield _tried(f"{name}: actuator", lambda station=station: _actuator(station))  # type: ignore[misc]
        if _heard_without_consent(station):
            yield Found(None, f"{name}: sound", "no consent: none of it is kept, sent or shown", _CONSENT_HINT)
        if station.ask is not None:
            yield _tried(f"{name}: server", lambda url=station.ask.url: _reachable(*_address(url)))  # type: ignore[misc]
    if config.cloud is None:
        yield Found(None, "control plane", "none is configured; the device works alone")
        return
    cloud = config.cloud
    yield _tried("control plane", lambda: _control_plane(config, cloud))
    yield _tried("enrolment", lambda: _enrolment(config, cloud))


def _tried(what: str, check: Callable[[], Found]) -> Found:
    try:
        return check()._replace(what=what)
    except LinesideError as error:
        return Found(False, what, str(error), error.hint)
    except OSError as error:
        return Found(
            False, what, f"{error.filename or ''} {error.strerror or error}".strip(), "look at rights and disk"
        )


def _disk(data: Path) -> Found:
    data.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(data).free
    if not os.access(data, os.W_OK):
        return Found(False, "", f"{data} cannot be written", f"give it to the user that runs the daemon: chown {data}")
    words = f"{free / 2**30:.1f} GiB free at {data}"
    return Found(free >= LOW_DISK_BYTES, "", words, "free space, or lower store.max_input_bytes")


def _record(config: Config) -> Found:
    from edge.station import store_path
    from edge.store import Store

    path = store_path(config)
    if not path.exists():
        return Found(None, "", "none yet; the daemon makes it at its first start")
    with Store.open_read_only(path, clock=SystemClock()) as store:
        size = store.outbox_size()
        return Found(True, "", f"{store.last_seq()} rows, {size.rows} not sent yet")


def _clock() -> Found:
    now = datetime.now(UTC)
    hint = "set the time (timedatectl set-ntp true); records carry a monotonic clock as well, so nothing is lost"
    return Found(now.year >= SENSIBLE_YEAR, "clock", now.isoformat(timespec="seconds"), hint)


def _cores(wanted: int | tuple[int, ...]) -> Found:
    held = choose(wanted, os.sched_getaffinity(0))
    words = f"held to {len(held.cores)} of {os.cpu_count()}: {', '.join(map(str, held.cores))}"
    return Found(held.problem is None, "cores", held.problem or words, "lower device.cores, or give the box more")


def _bundle(config: Config, station: StationSection) -> Found:
    from edge.bundle import load
    from edge.engines import EngineSettings, open_engine
    from edge.slotfile import SlotFile

    slot_file = SlotFile(config.device.data, station.model, SystemClock())
    slot = slot_file.book.serving
    path = slot_file.bundle_path(slot.ref) if slot else station.bundle
    if path is None:
        hint = "name one as station.*.bundle, or roll one out from the control plane"
        return Found(None if config.cloud else False, "", "none yet", hint)
    settings = EngineSettings(
        runtime=station.runtime, isolation=station.isolation, threads=station.threads, load_s=station.load_s
    )
    started = time.perf_counter()
    engine = open_engine(load(path), settings)
    engine.session.close()
    took_ms = (time.perf_counter() - started) * 1000
    words = f"{engine.ref.name} {engine.ref.version} gives its golden outputs on {engine.session.description}"
    if station.keep == "features" and engine.spec.features is None:
        return Found(False, "", f"{words}, but no features", 'keep = "features" keeps nothing with it')
    return Found(True, "", f"{words} ({took_ms:.0f} ms)" + (f"; {engine.note}" if engine.note else ""))


def _heard_without_consent(station: StationSection) -> bool:
    hears = station.source.get("kind") == "microphone" or station.sound_consent is not None
    return hears and not station.sound_agreed


def _source(config: Config, name: str, station: StationSection) -> Found:
    from edge.database import in_use
    from edge.sources import open_source
    from edge.station import store_path
    from edge.store import Store

    settings = dict(station.source)
    kind = str(settings.pop("kind", ""))
    path, clock = store_path(config), SystemClock()
    if kind in _HELD and in_use(path):
        hint = "lineside-edge status says how it is; end the daemon to have it tried here"
        return Found(None, "", f"{kind}: the daemon that runs has it", hint)
    store = Store.open_read_only(path, clock=clock) if path.exists() else None
    source = open_source(kind, settings, seen=lambda key: bool(store and store.seen(name, key)), clock=clock)
    try:
        until = time.monotonic() + FIRST_WINDOW_S
        while time.monotonic() < until and not source.exhausted:
            if window := source.read(0.25):
                ok = window.problem is None
                return Found(
                    ok, "", f"{kind}: {window.name}{'' if ok else f': {window.problem}'}", "look at the camera"
                )
        return Found(None, "", f"{kind}: opens, nothing new came within {FIRST_WINDOW_S:g} s")
    except SourceError as error:
        return Found(False, "", str(error), error.hint)
    finally:
        source.close()
        if store is not None:
            store.close()


def _actuator(station: StationSection) -> Found:
    from edge.actuators import probe_actuator

    settings = dict(station.actuator)
    kind = str(settings.pop("kind", ""))
    return Found(True, "", f"{kind}: {probe_actuator(kind, settings, clock=SystemClock())}")


def _address(url: str) -> tuple[str, int, str]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80), url


def _reachable(host: str, port: int, name: str) -> Found:
    try:
        socket.create_connection((host, port), REACH_S).close()
    except OSError as error:
        hint = "the device decides without it; look at network, name and firewall"
        return Found(False, "", f"{name}: {error.strerror or error}", hint)
    return Found(True, "", f"{name} answers")


def _control_plane(config: Config, cloud: CloudSection) -> Found:
    import urllib3

    from edge.http import connection_pool, for_people

    hint = "the device decides without it; look at network, name and firewall"
    url, asked = cloud.url, time.time()
    try:
        with connection_pool(read_s=REACH_S, tls=_trust(config, cloud)) as pool:
            answer = pool.request("GET", f"{url.rstrip('/')}/healthz", timeout=REACH_S)
    except urllib3.exceptions.HTTPError as error:
        return Found(False, "", f"{url}: {for_people(error)}", hint)
    if answer.status != HTTPStatus.OK:
        return Found(False, "", f"{url} answers {answer.status}", "is that the address of the control plane?")
    try:
        off_s = asked - parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
    except ValueError:
        return Found(True, "", f"{url} answers")
    words = f"{url} answers; the clock here is {abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} its own"
    return Found(abs(off_s) <= CLOCK_OFF_S, "", words, "set the time: timedatectl set-ntp true")


def _trust(config: Config, cloud: CloudSection) -> ssl.SSLContext:
    """Return what the control plane is verified by: as enrolment left it, or by the claim if there was none yet."""
    from edge.enrol import fetch_ca
    from edge.identity import ca_file
    from edge.tls import context
    from edge.wire.http import claim_parts

    known = ca_file(config.device.data / "identity", cloud.ca)
    _, digest = claim_parts(cloud.claim or "")
    if known is not None or digest is None or not cloud.url.startswith("https:"):
        return context(ca=known)
    return context(pem=fetch_ca(cloud.url, digest))


def _enrolment(config: Config, cloud: CloudSection) -> Found:
    from edge.identity import load_identity

    identity = load_identity(config.device.data / "identity")
    if identity is None:
        hint = f"make a token: lineside-cloud devices claim --device {config.device.name}; and put it at cloud.claim"
        return Found(bool(cloud.claim) or False, "", "not yet" + ("; has a claim token" if cloud.claim else ""), hint)
    if cloud.root is None or not cloud.root.exists():
        hint = "copy the control plane's root.json and name it as cloud.root"
        return Found(False, "", "enrolled, but without a root to trust: no new bundle is taken", hint)
    broker = identity.broker
    return _reachable(broker.host, broker.port, f"enrolled; broker {broker.host}:{broker.port}")
