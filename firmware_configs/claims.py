"""Asks a control plane for claims, one for each device, by the call that `lineside-cloud devices claim` makes.

Rules:
- The token that asks is an operator's, read from a file; it is shown to the control plane only, and never kept.
- A claim is for one device by name, profile and site, so that another card cannot use it.
"""

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from firmware_configs.errors import ConfigError

TIMEOUT_S = 30.0
MAX_ANSWER_BYTES = 2**20


@dataclass(frozen=True)
class Asked:
    """The control plane, and who asks."""

    server: str
    token: str | None = None
    ca: Path | None = None
    hours: float = 24.0 * 14
    """How long a claim may be used for the first time: cards travel."""

    def claim(self, device: str, profile: str, site: str) -> str:
        """Return a fresh claim for a device.

        Raises:
            ConfigError: the control plane refuses or cannot be reached.
        """
        body = {"device": device, "profile": profile, "site": site, "ttl_s": self.hours * 3600}
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if not self.server.startswith(("http://", "https://")):
            raise ConfigError(f"--server: expected an address such as http://127.0.0.1:8440, got {self.server!r}")
        url = f"{self.server.rstrip('/')}/v1/claims"
        asked = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - checked above
        context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        try:
            with urllib.request.urlopen(asked, timeout=TIMEOUT_S, context=context) as answer:  # noqa: S310
                return str(json.loads(answer.read(MAX_ANSWER_BYTES))["token"])
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode(errors="replace")
            raise ConfigError(f"{url} gives no claim for {device}: {error.code} {said}") from error
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"{url} gives no claim for {device}: {error}", hint="--server and --token-file"
            ) from error


def asked(server: str | None, token_file: Path | None, ca: Path | None) -> Asked | None:
    """Return whom to ask; None if nobody is named.

    Raises:
        ConfigError: the token cannot be read.
    """
    if server is None:
        return None
    try:
        token = token_file.read_text().strip() if token_file else None
    except OSError as error:
        raise ConfigError(f"--token-file: {token_file}: {error.strerror}") from error
    return Asked(server, token, ca)
