"""Tells a device what to run, without a control plane: a broker, signed bundles over HTTP, and `desired` by hand.

For tests that need many changes one after the other, or none at all: what a rollout would decide is not their matter.
"""

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge.bundle import parse
from edge.identity import Identity, save_identity
from edge.wire.base import BundleRef
from edge.wire.messages import Desired, DesiredBundles
from edge.wire.topics import topic
from tests.brokers import TestBroker, broker
from tests.faults.plant import Device
from tests.tufrepo import TufRepo
from tests.webserver import WebServer


class Commander:
    """One device's whole outside world; enter it before the device starts."""

    def __init__(self, folder: Path, kind: str = "nats") -> None:
        self._folder = folder
        self._kind = kind
        self._stack = ExitStack()
        self._repository = TufRepo()
        self._config_version = 0

    def __enter__(self) -> Self:
        self.server = self._stack.enter_context(WebServer())
        self.broker: TestBroker = self._stack.enter_context(broker(self._kind, self._folder / "broker"))
        self._serve_metadata()
        (self._folder / "root.json").write_bytes(self._repository.files["1.root.json"])
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="commander")
        self._client.connect("127.0.0.1", self.broker.port)
        self._client.loop_start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.loop_stop()
        self._stack.close()

    def device(self, name: str = "box-1", **settings: object) -> Device:
        """Return a device that is enrolled here already; without a shadow, whose child comes and goes in between."""
        settings["station"] = {"shadow_cpu_share": 0, **cast(dict[str, object], settings.get("station", {}))}
        made = Device(
            self._folder / name,
            name,
            cloud_url=self.server.url,
            root=self._folder / "root.json",
            **settings,  # type: ignore[arg-type]
        )
        identity = Identity(
            device=name,
            public_key="00" * 32,
            cloud_url=self.server.url,
            broker=self.broker.address,
            token="token",
            enrolled_at_ms=0,
        )
        (made.data_dir / "identity").mkdir(parents=True)
        save_identity(made.data_dir / "identity", identity)
        return made

    def publish(self, data: bytes) -> BundleRef:
        """Sign a bundle and serve it."""
        ref = parse(data).ref
        self._repository.add(ref.target_path, data)
        self._repository.step()
        self._serve_metadata()
        self.server.files[f"/tuf/targets/{ref.digest}.{ref.target_path}"] = data
        return ref

    def want(self, device: str, ref: BundleRef) -> int:
        """Tell a device to run a bundle; return the version of this wish."""
        self._config_version += 1
        desired = Desired(
            device=device,
            config_version=self._config_version,
            issued_at_ms=time.time_ns() // 1_000_000,
            bundles={ref.name: DesiredBundles(active=ref)},
        )
        told = self._client.publish(topic(device, "desired"), desired.model_dump_json(), qos=1, retain=True)
        told.wait_for_publish(20)
        return self._config_version

    def downloads(self) -> int:
        """Return how often a bundle was asked for."""
        return sum(request.path.startswith("/tuf/targets/") for request in self.server.requests)

    def leave(self) -> None:
        """Take the network away: nobody answers any more."""
        self.broker.stop()
        self.server.__exit__(None, None, None)

    def _serve_metadata(self) -> None:
        for name, data in self._repository.publish().items():
            self.server.files[f"/tuf/metadata/{name}"] = data
