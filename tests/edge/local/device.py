"""Real daemons with their pages, for tests: one that sees parts, sure and unsure, and one that hears words."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import urllib3

from edge.sound import encode_wav
from tests import nursery
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
HEARING = """
[device]
name = "phone-1"
[local]
listen = "127.0.0.1:{port}"
[station.main]
model = "spoken_digits"
bundle = "digits.lsb"
audit_share = 0
isolation = "inline"
source = {{ kind = "audio_file", path = "inbox", watch = true{segments} }}
"""
DIGITS = Path(__file__).parents[3] / "models" / "spoken_digits" / "spoken_digits-1.2.0.lsb"
RATE_HZ, SOUNDS = 16_000, 3
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
def hearing(folder: Path, *, silence_s: float | None = None) -> Iterator[Running]:
    """Start a daemon that hears three rising tones, of which it is unsure; wait until they are decided.

    With `silence_s` it listens for them: so much silence is before each.
    """
    port = free_port()
    (folder / "digits.lsb").symlink_to(DIGITS)
    (folder / "box.toml").write_text(
        HEARING.format(port=port, segments=', segments = { kind = "energy" }' if silence_s is not None else "")
    )
    (folder / "inbox").mkdir()
    times = np.arange(round(0.6 * RATE_HZ)) / RATE_HZ
    quiet = np.zeros(round((silence_s or 0) * RATE_HZ))
    for number in range(SOUNDS):
        tone = 0.3 * np.sin(2 * np.pi * (600 + 20 * number + 300 * times) * times)
        (folder / "inbox" / f"{number}.wav").write_bytes(
            encode_wav(np.concatenate([quiet, tone]).astype(np.float32), RATE_HZ)
        )
    with _started(folder, port, None, SOUNDS) as device:
        yield device


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
    with _started(folder, port, token, len(BRIGHTNESS) + 1) as device:
        yield device


@contextmanager
def _started(folder: Path, port: int, token: str | None, inputs: int) -> Iterator[Running]:
    process = nursery.start("edge", "run", "--config", "box.toml", cwd=folder, stderr=subprocess.DEVNULL)
    device = Running(folder, f"http://127.0.0.1:{port}", token)
    try:
        wait_until(lambda: _decided(device) == inputs, 60, "the inputs to be decided")
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
