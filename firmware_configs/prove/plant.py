"""A control plane of this checkout as a process of its own, for virtual devices to enrol with.

Rules:
- It is driven as people and devices drive it: by its commands and over HTTP; nothing of it is imported.
- It listens on loopback only; a guest reaches that as 10.0.2.2, so everybody who is no device signs in with a token.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from firmware_configs.errors import BuildError
from firmware_configs.prove.qemu import HOST_FROM_GUEST

COMMAND = [sys.executable, "-m", "cloud"]
START_S = 120.0
STOP_S = 20.0
TIMEOUT_S = 120.0
PLAN = """
strategy = "staged"
[[stages]]
kind = "ramp"
share = 1.0
min_s = 1
gates = []
"""
"""One stage without a gate: what is proved is that a version arrives, not when it may."""


class ControlPlane:
    """One that runs as long as the `with`."""

    def __init__(self, folder: Path) -> None:
        """Make its keys and settings."""
        self.folder = folder
        self.url = ""
        """Its address for people, on this machine."""
        self.from_guest = ""
        """Its address for devices, as the guest reaches it."""
        self._token = secrets.token_urlsafe(32)
        self.root = folder / "keys" / "root.json"
        folder.mkdir(parents=True, exist_ok=True)
        _run([*COMMAND, "keys", "init", str(folder / "keys"), "--server-dir", str(folder / "data" / "keys")])
        self._token_file = folder / "token"
        self._token_file.write_text(self._token)
        self._token_file.chmod(0o600)

    def __enter__(self) -> Self:
        addresses = self._start()
        self.url = addresses["url"]
        self.from_guest = f"https://{HOST_FROM_GUEST}:{urlsplit(addresses['device_url']).port}"
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def claim(self, device: str) -> str:
        """Return a token with which this device may enrol."""
        return str(self.ask("/v1/claims", {"device": device})["token"])

    def publish(self, bundle: Path, *, default: bool) -> dict[str, Any]:
        """Publish a bundle, as what new devices get if asked; return what it is now known as."""
        words = ["models", "publish", str(bundle), "--keys", str(self.folder / "keys"), "--server", self.url, "--json"]
        told = _run([*COMMAND, *words, "--token-file", str(self._token_file), *(["--default"] if default else [])])
        return dict(json.loads(told))

    def roll_out(self, model: str, version: str) -> str:
        """Give a version to every device at once, and return the rollout's id."""
        asked = {"model": model, "version": version, "plan": PLAN, "why": "proof", "unaudited": "proof"}
        return str(self.ask("/v1/rollouts", asked)["id"])

    def rollout(self, number: str) -> dict[str, Any]:
        """Return how a rollout stands."""
        return dict(self.ask(f"/v1/rollouts/{number}"))

    def device(self, name: str) -> dict[str, Any] | None:
        """Return what the control plane knows of a device; None as long as it has not enrolled."""
        found = self.ask(f"/v1/devices/{name}", missing=True)
        return None if found is None else dict(found)

    def decisions(self, name: str) -> list[dict[str, Any]]:
        """Return a device's newest decisions."""
        return list(self.ask(f"/v1/devices/{name}/decisions?last=1000", missing=True) or [])

    def page(self, path: str) -> str:
        """Return a page of the console."""
        return str(self.ask(path, text=True))

    def ask(self, path: str, body: object = None, *, missing: bool = False, text: bool = False) -> Any:
        """Ask over HTTP.

        Raises:
            BuildError: it refuses or is not there.
        """
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"{self.url}{path}", data, headers)  # noqa: S310 - our own loopback
        try:
            with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as answer:  # noqa: S310
                content = answer.read().decode()
        except urllib.error.HTTPError as error:
            if missing and error.code == 404:
                return None
            raise BuildError(f"{path}: {error.code} {error.read()[:300].decode(errors='replace')}") from error
        except OSError as error:
            raise BuildError(f"{path}: {error}") from error
        return content if text else json.loads(content)

    def stop(self) -> None:
        """End it in order."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> dict[str, str]:
        settings = self.folder / "cloud.toml"
        settings.write_text(
            f'[server]\nport = 0\noperator_token_file = "{self._token_file}"\n'
            f'[tls]\nnames = ["{HOST_FROM_GUEST}"]\n'
            f'[broker]\nport = 0\npublic_host = "{HOST_FROM_GUEST}"\n'
        )
        # The kernel ends it in order when the program that started it ends, however that was.
        command = [
            "setpriv",
            "--pdeathsig",
            "TERM",
            *COMMAND,
            "serve",
            "--config",
            str(settings),
            "--data-dir",
            str(self.folder / "data"),
            "--json",
        ]
        with (self.folder / "cloud.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"}
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BuildError(f"the control plane does not start: {(self.folder / 'cloud.log').read_text()[-600:]}")
        return dict(json.loads(line))


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command[2:5])} failed: {done.stderr.strip()[-400:]}")
    return done.stdout
