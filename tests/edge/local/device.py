"""A real daemon with its page, for tests: two sure parts, three unsure ones, one file that is no picture."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from tests.brokers import free_port
from tests.bundles import bundle_bytes
from tests.edge.commands.test_infer import picture
from tests.faults.plant import Cloud
from tests.waiting import wait_until

CONFIG = """
[device]
name = "box-1"
[link]
telemetry_window_s = 1
reconnect_max_s = 1
[local]
listen = "127.0.0.1:{port}"
{token}
{cloud}
[station.main]
model = "brightness"
bundle = "glass.lsb"
audit_share = 0
isolation = "inline"
source = {{ kind = "folder", path = "inbox", watch = true }}
{station}
"""
BRIGHTNESS = (250, 5, 128, 126, 130)


@dataclass
class Running:
    """The daemon and the way to its page."""

    folder: Path
    url: str
    token: str | None

    def get(self, path: str, **headers: str) -> urllib3.BaseHTTPResponse:
        return urllib3.request("GET", self.url + path, headers=headers, retries=False, timeout=10)

    def post(self, document: Any, **headers: str) -> urllib3.BaseHTTPResponse:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return urllib3.request("POST", f"{self.url}/api/answers", body=body, headers=headers, retries=False, timeout=10)

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/api/state", **self.bearer).json()
        return found

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    def value(self, metric: str) -> float:
        """Return a metric's value of a scrape, 0 if it is not there."""
        found = re.search(rf"^{re.escape(metric)} (\S+)$", self.get("/metrics", **self.bearer).data.decode(), re.M)
        return float(found[1]) if found else 0.0


@contextmanager
def running(folder: Path, token: str | None = None, station: str = "", cloud: Cloud | None = None) -> Iterator[Running]:
    """Start the daemon, with more lines for its station, alone or with a control plane; wait until all is decided."""
    port = free_port()
    (folder / "glass.lsb").write_bytes(bundle_bytes())
    said = f'token = "{token}"' if token else ""
    table = _cloud_table(cloud) if cloud else ""
    (folder / "box.toml").write_text(CONFIG.format(port=port, token=said, station=station, cloud=table))
    for number, brightness in enumerate(BRIGHTNESS):
        picture(folder / "inbox" / f"{number}.png", brightness)
    (folder / "inbox" / "5.png").write_bytes(b"rubbish")
    command = [sys.executable, "-m", "edge", "run", "--config", "box.toml"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    device = Running(folder, f"http://127.0.0.1:{port}", token)
    try:
        wait_until(lambda: _decided(device) == len(BRIGHTNESS) + 1, 60, "the parts to be decided")
        yield device
    finally:
        process.terminate()
        assert process.wait(30) == 0


def _cloud_table(cloud: Cloud) -> str:
    return f'[cloud]\nurl = "{cloud.url}"\nclaim = "{cloud.claim("box-1")}"\nroot = "{cloud.root}"'


def _decided(device: Running) -> int:
    try:
        return int(device.state()["reported"]["stations"]["main"]["decisions"])
    except urllib3.exceptions.HTTPError:
        return 0
