"""Talks to a control plane by HTTP: what the command line and scripts use.

Rules:
- Every failure is one of `cloud.errors`, with what the control plane said.
- Nothing here needs the server's libraries; those for signing are loaded when something is signed.
"""

import getpass
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from cloud import errors
from edge.wire.base import target_path

TIMEOUT_S = 30.0
UPLOAD_TIMEOUT_S = 600.0
READ_BYTES = 2**20


class CloudClient:
    """One control plane."""

    def __init__(
        self, url: str, *, token: str | None = None, http: httpx.Client | None = None, ca: Path | None = None
    ) -> None:
        """Take a control plane's address.

        Args:
            url: where it is.
            token: what to show it.
            http: a client to use instead of one of its own.
            ca: what to verify it by (PEM), instead of what the system trusts.

        Raises:
            ConfigError: there is no certificate in that file.
        """
        self._url = url
        headers = {"Lineside-Who": user_name()} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._http = http or httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False, verify=_context(url, ca))
        self._http.headers.update(headers)

    def __enter__(self) -> "CloudClient":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """Return the answer's JSON.

        Raises:
            CloudError: the control plane is not there, or refuses.
        """
        return self._call("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Any = None) -> Any:
        """Send JSON and return the answer's, or None where there is none.

        Raises:
            CloudError: as `get`.
        """
        return self._call("POST", path, json={} if body is None else body)

    def delete(self, path: str) -> None:
        """Remove something.

        Raises:
            CloudError: as `get`.
        """
        self._call("DELETE", path)

    def devices(self) -> list[dict[str, Any]]:
        """Return the fleet."""
        return list(self.get("/v1/devices"))

    def claim(self, **fields: Any) -> dict[str, Any]:
        """Make a one-time claim; see `cloud.routes.enrol.ClaimRequest` for its fields."""
        return dict(self.post("/v1/claims", {name: value for name, value in fields.items() if value is not None}))

    def bundles(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the published bundles."""
        return list(self.get("/v1/bundles", name=name))

    def publish(self, bundle: Path, release_key: Path, *, default: bool = False, unaudited: str = "") -> dict[str, Any]:
        """Sign a bundle into the list and upload both; doing it again with the same file changes nothing.

        Raises:
            CloudError: the file or key is unusable, or the control plane refuses, and why.
        """
        from cloud import archive, keys

        if not bundle.is_file():
            raise errors.ConfigError(f"{bundle}: no such file")
        manifest = archive.read_manifest(bundle)
        known = next((entry for entry in self.bundles(manifest.name) if entry["version"] == manifest.version), None)
        digest, size_bytes = _digest(bundle)
        if known is not None and known["digest"] == digest:
            place = f"/v1/bundles/{manifest.name}/{manifest.version}"
            if not known.get("has_file", True):
                with bundle.open("rb") as stream:
                    files = {"bundle": ("bundle.lsb", stream)}
                    known = self._call("POST", f"{place}/file", files=files, timeout=UPLOAD_TIMEOUT_S)
            if default and not known["is_default"]:
                return dict(self.post(f"{place}/default", {"unaudited": unaudited}))
            return dict(known)
        signed = keys.with_bundle(
            self._raw("/v1/bundles/targets"),
            path=target_path(manifest.name, manifest.version),
            digest=digest,
            size_bytes=size_bytes,
            release_key=release_key,
            now=datetime.now(UTC),
        )
        with bundle.open("rb") as stream:
            return dict(self.upload(stream, signed, default=default, unaudited=unaudited))

    def upload(self, bundle: Any, targets: bytes, *, default: bool = False, unaudited: str = "") -> Any:
        """Send a bundle (a readable file or bytes) and the signed list that names it."""
        files = {"bundle": ("bundle.lsb", bundle), "targets": ("targets.json", targets)}
        form = {"default": "true" if default else "false", "unaudited": unaudited}
        return self._call("POST", "/v1/bundles", files=files, data=form, timeout=UPLOAD_TIMEOUT_S)

    def _call(self, method: str, path: str, **options: Any) -> Any:
        with self._wrapped():
            answer = self._http.request(method, path, **options)
        _check(answer)
        return answer.json() if answer.content else None

    def _raw(self, path: str) -> bytes:
        with self._wrapped():
            answer = self._http.get(path)
        _check(answer)
        return answer.content

    @contextmanager
    def _wrapped(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise errors.UnavailableError(
                f"no control plane answers at {self._url}: {error or type(error).__name__}",
                hint="is `lineside-cloud serve` running? give its address by --server or LINESIDE_CLOUD",
            ) from error


def _context(url: str, ca: Path | None) -> ssl.SSLContext | bool:
    if ca is None and url.startswith("http://"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody: what the system trusts takes 30 ms to read
    if ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is one
        raise errors.ConfigError(f"{ca} holds no certificate: {error}", hint="tls/ca.pem in its data folder") from error


def _check(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    try:
        said = answer.json()
    except ValueError:
        said = {}
    if not isinstance(said, dict) or "error" not in said:
        detail = said.get("detail") if isinstance(said, dict) else None
        said = {"error": str(detail or answer.text[:500] or answer.reason_phrase)}
    raise _family(answer.status_code)(said["error"], hint=said.get("hint", ""))


def _family(status: int) -> type[errors.CloudError]:
    families = (
        errors.UnauthorizedError,
        errors.RefusedError,
        errors.NotFoundError,
        errors.ConflictError,
        errors.TooLargeError,
        errors.InvalidError,
        errors.TooManyError,
        errors.UnavailableError,
    )
    return next((family for family in families if family.status == status), errors.CloudError)


def _digest(path: Path) -> tuple[str, int]:
    hashed, size_bytes = sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(READ_BYTES):
            hashed.update(chunk)
            size_bytes += len(chunk)
    return hashed.hexdigest(), size_bytes


def user_name() -> str:
    """Return who sits at this machine, as far as it knows."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "operator"
    return re.sub(r"[^\w.@+ -]", "_", name, flags=re.ASCII)[:64] or "operator"
