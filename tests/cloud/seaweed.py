"""A real S3-compatible server for tests: SeaweedFS from its wheel, as a child with a folder of its own."""

import sys
from pathlib import Path

import httpx

from benchmarks.servers import _free_port, _Server

BUCKET = "lineside"
SERVED = ("master", "volume", "filer", "s3")


class Seaweed(_Server):
    """SeaweedFS with one bucket that everybody may use."""

    def __init__(self) -> None:
        super().__init__("seaweedfs")
        program = Path(sys.executable).parent / "weed"
        ports = {name: _free_port() for name in [*SERVED, *(f"{name}.grpc" for name in SERVED)]}
        options = [
            f"-{name.replace('.grpc', '.port.grpc') if 'grpc' in name else f'{name}.port'}={port}"
            for name, port in ports.items()
        ]
        self.endpoint = f"http://127.0.0.1:{ports['s3']}"
        self._launch(
            str(program),
            "server",
            f"-dir={self.folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-s3",
            "-volume.max=4",
            "-master.volumeSizeLimitMB=64",
            *options,
        )
        self._until(self._has_bucket, "SeaweedFS")

    @property
    def options(self) -> dict[str, str]:
        """`store.blobs_options` for it."""
        return {"endpoint": self.endpoint, "region": "us-east-1", "access_key_id": "any", "secret_access_key": "any"}

    def _has_bucket(self) -> bool:
        try:
            with httpx.Client(trust_env=False, timeout=2) as client:
                return client.put(f"{self.endpoint}/{BUCKET}").status_code in (200, 409)
        except httpx.HTTPError:
            return False
