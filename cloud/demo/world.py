"""Sets the demo's world up: a control plane with keys, three inspection boxes and a phone, each with its own config.

Rules:
- Everything is started through the same commands and configuration files that a person would use.
- Everything lies in one folder that a run begins anew; only pictures and sounds are kept from run to run.
"""

import asyncio
import json
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from cloud.demo.network import Network
from cloud.demo.pictures import Feeder, Pool, make_pool
from cloud.demo.processes import Processes
from cloud.errors import ConfigError, UnavailableError

CHECKOUT = Path(__file__).resolve().parents[2]
BOXES = ("box-1", "box-2", "box-3")
PHONE = "phone-1"
DEVICES = (*BOXES, PHONE)
MODEL = "phone_glass"
PICTURES_PER_S = 10.0
SOUNDS_PER_S = 1.0
POOL_PICTURES, POOL_DIM, POOL_SOUNDS = 240, 120, 40
"""Enough that a picture seldom comes twice in the story, few enough to be drawn in seconds."""
START_S = 30.0

CLOUD_TOML = """\
[server]
port = {http_port}
device_port = {device_port}

[tls]
names = {names}

[store]
data_dir = "cloud"

[broker]
port = {broker_port}
public_port = {public_broker_port}

[registry]
keys_dir = "keys/server"
"""

DEVICE_TOML = """\
[device]
name = "{name}"
profile = "{profile}"
site = "{site}"
data = "{name}/data"

[cloud]
url = "{url}"
claim = "{claim}"
root = "keys/root.json"

[store]
durability = "process"

[link]
report_interval_s = 2
reconnect_max_s = 2
telemetry_window_s = 5

[probation]
windows = 20
seconds = 2

[station.main]
model = "{model}"
bundle = "{bundle}"
audit_share = {audit_share}
deadline_ms = 2000
source = {{ kind = "{source}", path = "{name}/inbox" }}
actuator = {{ kind = "log", path = "{name}/actions.jsonl" }}
"""


@dataclass
class World:
    """The running demo. Belongs to one event loop."""

    folder: Path
    http_port: int
    device_port: int
    """Where the control plane itself takes devices' HTTPS; they come by the network."""
    processes: Processes
    network: Network = field(default_factory=lambda: Network(DEVICES))
    feeders: dict[str, Feeder] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The console's address."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def truth(self) -> dict[str, str]:
        """What each picture really shows, by digest."""
        return {**self.pools["normal"].truth, **self.pools["dim"].truth}

    def config(self, device: str) -> Path:
        """Return a device's configuration file."""
        return self.folder / f"{device}.toml"

    def bundle(self, version: str) -> Path:
        """Return a committed bundle of the inspection model."""
        return _bundle(MODEL, version)


async def set_up(folder: Path, http_port: int) -> World:
    """Begin anew in a folder, start the control plane, and write the devices' configurations.

    Raises:
        ConfigError: this is not a checkout, or the port is taken.
        UnavailableError: the control plane did not come up.
    """
    if not (CHECKOUT / "models" / MODEL).is_dir():
        raise ConfigError(
            f"the demo needs the reference models, and {CHECKOUT / 'models'} is not there",
            hint="run it from a checkout: `make demo`",
        )
    _begin_anew(folder)
    world = World(folder, _usable(http_port), _usable(0), Processes(folder / "logs", folder))
    try:
        await _start_cloud(world)
        world.pools = await _pools(folder / "pools")
    except BaseException:
        await world.processes.stop_all()
        raise
    return world


async def start_device(world: World, device: str) -> None:
    """Make a claim, write the device's configuration, begin to deliver its inputs, and start it."""
    phone = device == PHONE
    claim = await world.processes.call("cloud", "devices", "claim", "--device", device, "--server", world.url, "--json")
    port = await world.network.forward_http(world.device_port, device)
    world.config(device).write_text(
        DEVICE_TOML.format(
            name=device,
            profile="phone-sim" if phone else "x86-box",
            site="yard" if phone else "hall-a",
            url=f"https://{world.network.address(device)}:{port}",
            claim=claim["token"],
            model="spoken_digits" if phone else MODEL,
            bundle=_bundle("spoken_digits", "1.2.0") if phone else _bundle(MODEL, "1.0.0"),
            audit_share=0.05 if phone else 0.5,
            source="audio_file" if phone else "folder",
        )
    )
    pool, rate = ("speech", SOUNDS_PER_S) if phone else ("normal", PICTURES_PER_S)
    feeder = Feeder(world.folder / device / "inbox", world.pools[pool], rate, seed=DEVICES.index(device))
    feeder.folder.mkdir(parents=True, exist_ok=True)
    world.feeders[device] = feeder
    await world.processes.start(device, "edge", "run", "--config", str(world.config(device)))


async def _start_cloud(world: World) -> None:
    await world.processes.call("cloud", "keys", "init", "keys", "--json")
    broker_port = _usable(0)
    public_port = await world.network.forward_broker(broker_port)
    (world.folder / "cloud.toml").write_text(
        CLOUD_TOML.format(
            http_port=world.http_port,
            device_port=world.device_port,
            broker_port=broker_port,
            public_broker_port=public_port,
            names=json.dumps([world.network.address(device) for device in DEVICES]),
        )
    )
    await world.processes.start("cloud", "cloud", "serve", "--config", "cloud.toml")
    await _answering(world)


async def _pools(folder: Path) -> dict[str, Pool]:
    glass, speech = "models.phone_glass.generate", "models.spoken_digits.speak"
    made = {
        "normal": (glass, "--count", str(POOL_PICTURES), "--seed", "77", "--light", "mixed"),
        "dim": (glass, "--count", str(POOL_DIM), "--seed", "78", "--light", "dim"),
        "speech": (speech, "--count", str(POOL_SOUNDS), "--seed", "79"),
    }
    making = [
        asyncio.ensure_future(make_pool(module, folder / name, *arguments, cwd=CHECKOUT))
        for name, (module, *arguments) in made.items()
    ]
    try:
        return dict(zip(made, await asyncio.gather(*making), strict=True))
    finally:
        for pool in making:  # when one fails, nobody waits for the others any more
            pool.cancel()
        await asyncio.gather(*making, return_exceptions=True)


async def _answering(world: World) -> None:
    async with asyncio.timeout(START_S), httpx.AsyncClient(base_url=world.url) as client:
        while True:
            world.processes.check()
            try:
                if (await client.get("/v1/devices")).is_success:
                    return
            except httpx.HTTPError:
                await asyncio.sleep(0.1)
    raise UnavailableError(f"the control plane did not answer within {START_S:.0f} s")


def _begin_anew(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.name == "pools":
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    (folder / "README.json").write_text(json.dumps({"what": "made by `make demo`; safe to delete"}))


def _usable(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(f"port {port} is taken", hint="stop what uses it, or pass --port") from error
        found: int = probe.getsockname()[1]
        return found


def _bundle(model: str, version: str) -> Path:
    return CHECKOUT / "models" / model / f"{model}-{version}.lsb"
