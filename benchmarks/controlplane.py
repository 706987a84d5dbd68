"""Runs the real control plane as a process with a broker and a fleet of given size, for benchmarks and fault tests.

Rules:
- Devices are put into the table beforehand, all with one password: enrolment is another question.
- Everything runs as in service: `lineside-cloud serve`, a real broker, a real database. Only TLS is off.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import psutil

from benchmarks.servers import Mosquitto
from cloud import tables
from cloud.broker_files import CloudAccount, ExternalListener, mosquitto_files
from cloud.enrolment import BCRYPT_COST, Account, mosquitto_hash
from cloud.store import CloudStore, insert_ignore

PASSWORD = "fleet-of-the-bench"  # noqa: S105  (of simulated devices on this machine)
CLOUD_PASSWORD = "control-plane-of-the-bench"  # noqa: S105
CLOUD_USER = "lineside-cloud"
PLACE = Path(__file__).parents[1]


def names_of(count: int) -> list[str]:
    """Return the names of so many devices."""
    return [f"box-{number:05d}" for number in range(count)]


def take_in(url: str, names: list[str]) -> None:
    """Put devices into the fleet, without enrolment."""
    fields = {
        "profile": "inspection-box",
        "site": "bench",
        "tags": [],
        "models": ["glass"],
        "public_key": "00" * 32,
        "token_digest": "00" * 32,
        "broker_password_hash": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(BCRYPT_COST)).decode(),
        "mosquitto_password_hash": mosquitto_hash(PASSWORD),
        "enrolled_at_ms": 1,
        "revoked_at_ms": None,
    }
    store = CloudStore.open(url)
    with store.write() as connection:
        insert_ignore(connection, tables.devices, [{"device": name, **fields} for name in names])
    store.close()


def accounts_for(broker: Mosquitto, names: list[str]) -> None:
    """Write Mosquitto's accounts for a fleet and its control plane."""
    hashed = mosquitto_hash(PASSWORD)
    listener = ExternalListener(
        broker.folder, "127.0.0.1", broker.port, tls=False, certificates=False, own_certificate=False
    )
    cloud = CloudAccount(CLOUD_USER, pbkdf2=mosquitto_hash(CLOUD_PASSWORD))
    files = mosquitto_files(listener, cloud, [Account(name, pbkdf2=hashed) for name in names], revoked="")
    broker.accounts({name: files[name] for name in ("acl_file", "password_file")})


@dataclass(frozen=True)
class Settings:
    """What differs between control planes."""

    folder: Path
    database: str
    broker: Mosquitto | None = None
    """None for the embedded one."""
    share: str = ""
    """Name of the group of copies that share the messages."""
    keys: Path | None = None
    """Folder with the server's keys, where bundles are published."""


class ControlPlane:
    """One process of `lineside-cloud serve`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.addresses: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        settings.folder.mkdir(parents=True, exist_ok=True)
        (settings.folder / "cloud.toml").write_text(self._config())

    @property
    def broker_port(self) -> int:
        """Where devices connect."""
        return int(self.addresses["broker_port"])

    @property
    def log(self) -> str:
        """What it wrote to stderr, over all starts."""
        return (self.settings.folder / "log").read_text("utf-8", "replace")

    def start(self) -> None:
        """Start it and wait until it is up.

        Raises:
            RuntimeError: it does not start.
        """
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start it."""
        command = [
            sys.executable,
            "-m",
            "cloud",
            "serve",
            "--config",
            str(self.settings.folder / "cloud.toml"),
            "--json",
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PLACE), os.environ.get("PYTHONPATH", "")])}
        with (self.settings.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)

    def wait_ready(self) -> None:
        """Wait until it says where it is."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the control plane did not start: {self.log[-2000:]}")
        self.addresses = json.loads(line)

    def kill(self) -> None:
        """Kill it where it stands."""
        if self._process is not None:
            self._process.kill()
            self._end()

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None:
            self._process.terminate()
            self._end()

    def processes(self) -> tuple[psutil.Process, psutil.Process | None]:
        """Return the process itself, and the embedded broker's if there is one."""
        own = psutil.Process(self.addresses["pid"])
        children = [child for child in own.children() if "nats" in child.name()]
        return own, children[0] if children else None

    def _end(self) -> None:
        assert self._process is not None
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def _config(self) -> str:
        text = f'[server]\nport = 0\n[store]\ndata_dir = "data"\nurl = {json.dumps(self.settings.database)}\n'
        if self.settings.keys is not None:
            text += f"[registry]\nkeys_dir = {json.dumps(str(self.settings.keys))}\n"
        broker = self.settings.broker
        if broker is None:
            return text + "[broker]\nport = 0\ntls = false\n"
        (self.settings.folder / "password").write_text(CLOUD_PASSWORD)
        external = f'[broker]\nkind = "external"\nport = {broker.port}\npassword_file = "password"\ntls = false\n'
        if not self.settings.share:
            return text + external
        (self.settings.folder / "authority-secret").write_text("the same at all copies of a bench")
        return f'{text}{external}share = "{self.settings.share}"\n[tls]\nauthority_secret_file = "authority-secret"\n'
