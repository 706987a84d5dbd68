"""Runs PostgreSQL and Mosquitto as private children for benchmarks and tests: own folder, own port, nothing left over.

Rules:
- PostgreSQL listens on a Unix socket in its folder only. Both run without privileges: started by root, they are given
  to `nobody`.
- Both may be killed where they stand and started again; their folders stay until `close`.
- PostgreSQL runs without fsync here: a kill loses nothing all the same, and a power cut is not what is asked.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cloud.broker import die_with

WAIT_S = 30.0
POLL_S = 0.02
NOBODY = 65534
USER = "lineside"
POSTGRESQL_FOLDERS = "/usr/lib/postgresql/*/bin"
POSTGRESQL_CONFIG = """
listen_addresses = ''
unix_socket_directories = '{folder}'
fsync = off
full_page_writes = off
max_connections = 200
shared_buffers = 128MB
max_wal_size = 2GB
"""
MOSQUITTO_CONFIG = """
listener {port} 127.0.0.1
allow_anonymous false
password_file {folder}/password_file
acl_file {folder}/acl_file
persistence true
persistence_location {folder}/
autosave_interval 1
max_queued_messages 0
max_inflight_messages 200
log_dest file {folder}/mosquitto.log
"""


class NotInstalledError(RuntimeError):
    """The server's program is not on this machine; the message names the Debian package."""


class _Server:
    """A child with a folder of its own."""

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"lineside-{name}-"))
        self.folder.chmod(0o700)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process number."""
        assert self._process is not None
        return self._process.pid

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it with this signal and wait."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(WAIT_S)
            self._process = None

    def close(self) -> None:
        """End it and remove its folder."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def reload(self) -> None:
        """Have it read its files anew."""
        assert self._process is not None
        self._hand_over()
        self._process.send_signal(signal.SIGHUP)

    def _launch(self, *command: str) -> None:
        self._hand_over()
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                preexec_fn=die_with(os.getpid()),  # noqa: PLW1509  (it only calls the C library)
                cwd="/",
                **_as_nobody(),
            )

    def _hand_over(self) -> None:
        if os.geteuid() == 0:
            for path in [self.folder, *self.folder.iterdir()]:
                os.chown(path, NOBODY, NOBODY)

    def _until(self, ready: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not ready():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"{what} did not start: {(self.folder / 'output').read_text()[-2000:]}")
            time.sleep(POLL_S)


class Postgres(_Server):
    """A PostgreSQL cluster with one superuser, `lineside`."""

    def __init__(self) -> None:
        self._binaries = _postgresql_folder()
        super().__init__("postgresql")
        self._data = self.folder / "data"
        self._hand_over()
        initdb = (str(self._binaries / "initdb"), "-D", str(self._data), "-U", USER, "-A", "trust", "-E", "UTF8", "-N")
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd="/", **_as_nobody())
        with (self._data / "postgresql.conf").open("a") as config:
            config.write(POSTGRESQL_CONFIG.format(folder=self.folder))
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._launch(str(self._binaries / "postgres"), "-D", str(self._data))
        command = [str(self._binaries / "pg_isready"), "-q", "-h", str(self.folder), "-U", USER, "-d", "postgres"]
        self._until(lambda: subprocess.run(command, check=False).returncode == 0, "PostgreSQL")

    def url(self, database: str = "postgres") -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://{USER}@/{database}?host={self.folder}"

    def create(self, database: str, template: str = "template0") -> str:
        """Make a database, as a copy of another; return its URL."""
        self.run(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
        return self.url(database)

    def drop(self, database: str) -> None:
        """Remove a database, whoever is in it."""
        self.run(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    def run(self, statement: str) -> None:
        """Run one statement outside of any transaction."""
        import psycopg  # not everybody who starts a broker has it

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement.encode())


class Mosquitto(_Server):
    """Mosquitto with accounts from files."""

    def __init__(self) -> None:
        self._program = _found("mosquitto", "mosquitto")
        super().__init__("mosquitto")
        self.port = _free_port()
        config = MOSQUITTO_CONFIG.format(port=self.port, folder=self.folder)
        (self.folder / "mosquitto.conf").write_text(config)

    def accounts(self, files: dict[str, str]) -> None:
        """Write the files of `cloud.broker_files.mosquitto_files` that say who may what."""
        for name, text in files.items():
            (self.folder / name).write_text(text)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._launch(self._program, "-c", str(self.folder / "mosquitto.conf"))
        self._until(self._answers, "Mosquitto")

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


def _as_nobody() -> dict[str, Any]:
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def _postgresql_folder() -> Path:
    found = sorted(Path("/").glob(POSTGRESQL_FOLDERS[1:]), key=lambda path: int(path.parent.name))
    if found and (found[-1] / "postgres").exists():
        return found[-1]
    return Path(_found("postgres", "postgresql")).parent


def _found(program: str, package: str) -> str:
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise NotInstalledError(f"{program} is not installed (Debian package: {package})")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
