"""Inputs and bundles in an S3-compatible store, for several copies of the control plane.

Rules:
- An object is named by its content's SHA-256, so writing it again changes nothing, and copies need not agree.
- What is fetched is checked against its name before anybody gets it.
- Requests are tried again by the client for at most `RETRY_S`; then it is `UnavailableError`, and devices come again.
"""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from cloud.errors import ConfigError, UnavailableError

TIMEOUT_S = 30
RETRY_S = 10
CHUNK_BYTES = 2**20


class Bucket:
    """A place in a bucket."""

    def __init__(self, url: str, options: Mapping[str, str], folder: str) -> None:
        """Open it; nothing is sent yet.

        Args:
            url: `s3://bucket/prefix`.
            options: what its client needs besides the usual AWS_… variables, for example `endpoint`.
            folder: below the prefix.

        Raises:
            ConfigError: the URL or an option is not one, or the client is not installed.
        """
        if not url.startswith("s3://"):
            raise ConfigError(f"store.blobs: expected s3://bucket/prefix, got {url!r}")
        try:
            import obstore
            from obstore.store import S3Store
        except ModuleNotFoundError as error:
            raise ConfigError("store.blobs: its client is not installed", hint="pip install 'lineside[s3]'") from error
        plain = str(options.get("endpoint", "")).startswith("http://")
        settings: dict[str, Any] = {
            "config": dict(options),
            "client_options": {"timeout": timedelta(seconds=TIMEOUT_S), "allow_http": plain},
            "retry_config": {"retry_timeout": timedelta(seconds=RETRY_S)},
        }
        try:
            self._store: Any = S3Store.from_url(f"{url.rstrip('/')}/{folder}", **settings)
        except Exception as error:
            raise ConfigError(f"store.blobs: {error}", hint="see store.blobs_options in cloud/cloud.toml") from error
        self._client: Any = obstore

    def has(self, digest: str) -> bool:
        """Return whether the object is there.

        Raises:
            UnavailableError: that cannot be found out.
        """
        try:
            self._client.head(self._store, digest)
        except FileNotFoundError:
            return False
        except Exception as error:
            raise _away(error) from error
        return True

    def put(self, digest: str, file: Path) -> None:
        """Keep a file's bytes under their digest.

        Raises:
            UnavailableError: the store does not take them.
        """
        try:
            self._client.put(self._store, digest, file)
        except Exception as error:
            raise _away(error) from error

    def fetch(self, digest: str, into: Path) -> bool:
        """Write an object into a file; return whether it is there.

        Raises:
            UnavailableError: it cannot be had, or is not what its name says.
        """
        hashed = hashlib.sha256()
        try:
            with into.open("wb") as file:
                for chunk in self._client.get(self._store, digest).stream(min_chunk_size=CHUNK_BYTES):
                    hashed.update(chunk)
                    file.write(chunk)
        except FileNotFoundError:
            into.unlink(missing_ok=True)
            return False
        except Exception as error:
            into.unlink(missing_ok=True)
            raise _away(error) from error
        if hashed.hexdigest() != digest:
            into.unlink(missing_ok=True)
            raise UnavailableError(f"the store of blobs gave something else than {digest[:12]}…")
        return True

    def remove(self, digest: str) -> None:
        """Remove an object; nothing happens if it is not there.

        Raises:
            UnavailableError: that did not work.
        """
        try:
            self._client.delete(self._store, digest)
        except FileNotFoundError:
            return
        except Exception as error:
            raise _away(error) from error


def _away(error: Exception) -> UnavailableError:
    first = str(error).strip().partition("\n")[0]
    return UnavailableError(f"the store of blobs: {first[:300]}", hint="see store.blobs; devices send again later")
