"""Asks which bundles are trusted: The Update Framework (python-tuf), rooted in what the device was flashed with.

Rules:
- TUF's own client does all checking: signatures and thresholds, rollback, freeze, mix-and-match, endless data.
- It runs in a short-lived child (`python -m edge.trust`): its libraries take 20 MB that the daemon does not need
  between updates, and whatever a hostile answer does to it ends with the child.
- The root that the device was flashed with is given every time; newer roots must follow from it, link by link.
- Metadata that was accepted is on disk before it takes the place of what was there, and before it is believed, so that
  a power cut does not forget a version. TUF's client renames what it has not synced, so its writing is done here.
- Time never goes back: metadata is held against the latest time at which some was found good, so that a clock that is
  set back brings nothing expired to life. That time is never later than what was found good was to last, so that a
  clock that once was ahead shuts nothing out.
- The child's verbs are those of the public TUF conformance suite (`init`, `refresh`, `download`), and `target`.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import ConfigError, LinesideError, LinkError, StoreError, UpdateError
from edge.files import make_directory, sync_directory, write_atomic

if TYPE_CHECKING:
    from tuf.ngclient import Updater

DEADLINE_S = 60.0
"""For four small files; a line that needs longer is tried again later."""
SILENCE_S = 15
"""Longest silence of the server within one file."""
SEEN = "latest-time"
"""File beside the metadata: when some was last found good (ISO 8601)."""
_FAMILIES: dict[str, type[LinesideError]] = {
    "config": ConfigError,
    "link": LinkError,
    "store": StoreError,
    "update": UpdateError,
}


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """What the signed metadata says of a bundle."""

    digest: str
    """SHA-256, lower-case hexadecimal."""
    size_bytes: int


def trusted_target(
    target_path: str,
    *,
    metadata_dir: Path,
    metadata_url: str,
    root: Path | None = None,
    ca: Path | None = None,
    deadline_s: float = DEADLINE_S,
) -> TargetInfo:
    """Bring the signed metadata up to date and return what it says of a bundle.

    Args:
        target_path: the bundle's name in the repository, `BundleRef.target_path`.
        metadata_dir: where the device keeps trusted metadata.
        metadata_url: where the control plane serves it, for example `http://cloud/tuf/metadata`.
        root: the root of trust; None if `init` has put it into `metadata_dir`.
        ca: what to verify the control plane by (PEM), instead of what the system trusts.
        deadline_s: for everything.

    Raises:
        UpdateError: the metadata is forged, old, altered or expired, or does not know the bundle.
        LinkError: it could not be fetched in time.
        StoreError: the disk does not take it.
        ConfigError: there is no usable root of trust.
    """
    command = [sys.executable, "-P", "-m", "edge.trust", "--metadata-dir", str(metadata_dir)]
    command += ["--metadata-url", metadata_url, "--json", *(["--root", str(root)] if root else [])]
    command += ["--target-name", target_path, "target"]
    options: dict[str, Any] = {"capture_output": True, "timeout": deadline_s, "stdin": subprocess.DEVNULL}
    try:
        child = subprocess.run(command, check=False, env=_environment(ca), **options)
    except subprocess.TimeoutExpired as error:
        raise LinkError(f"{metadata_url}: the signed metadata did not come within {deadline_s:g} s") from error
    except OSError as error:
        raise UpdateError(f"the check of signatures cannot be started: {error}", retry=True) from error
    return _answer(child)


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; 0 if everything was proven, 1 if not, with the reason in words on standard error."""
    options = _parse(arguments)
    try:
        answer = _VERBS[options.verb](options)
    except LinesideError as error:
        answer = {"family": _family(error), "message": str(error), "hint": error.hint, "retry": error.retry}
        print(
            json.dumps(answer) if options.json else error.for_people(), file=sys.stdout if options.json else sys.stderr
        )
        return 1
    if options.json:
        print(json.dumps(answer))
    return 0


# ── private, in call order ──────────────────────────────────────────────────────────────────────────────────────


def _environment(ca: Path | None) -> dict[str, str] | None:
    """Return the child's environment: TUF's fetcher believes whom OpenSSL takes the system to believe."""
    if ca is None:
        return None
    return {**os.environ, "SSL_CERT_FILE": str(ca), "SSL_CERT_DIR": str(ca.with_name("no-others"))}


def _answer(child: "subprocess.CompletedProcess[bytes]") -> TargetInfo:
    try:
        answer: dict[str, Any] = json.loads(child.stdout)
        if child.returncode == 0:
            return TargetInfo(digest=answer["digest"], size_bytes=answer["size_bytes"])
        family = _FAMILIES[answer["family"]]
        raise family(answer["message"], hint=answer["hint"], retry=answer["retry"])
    except (ValueError, KeyError, TypeError) as error:
        last = child.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise UpdateError(f"the check of signatures ended with {child.returncode}: {last[0]}", retry=True) from error


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m edge.trust", description="Check bundles against signed metadata.")
    parser.add_argument("--metadata-dir", type=Path, required=True, help="folder for trusted metadata")
    parser.add_argument("--metadata-url", help="where signed metadata is served")
    parser.add_argument("--root", type=Path, help="root of trust, instead of the one that init kept")
    parser.add_argument("--target-name", help="name of the file in the repository")
    parser.add_argument("--target-base-url", help="where files are served")
    parser.add_argument("--target-dir", type=Path, help="folder for downloaded files")
    parser.add_argument("--json", action="store_true", help="answer as one line of JSON on standard output")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("init", help="trust this root from now on").add_argument("trusted_root", type=Path)
    verbs.add_parser("refresh", help="bring the metadata up to date")
    verbs.add_parser("download", help="download and check a file")
    verbs.add_parser("target", help="say digest and size of a file")
    return parser.parse_args(arguments)


def _init(options: argparse.Namespace) -> dict[str, Any]:
    options.root = options.trusted_root
    with _Checking(options.metadata_dir):
        _updater(options)
    return {}


def _refresh(options: argparse.Namespace) -> dict[str, Any]:
    _need(options, "metadata_url")
    with _Checking(options.metadata_dir):
        _refreshed(options)
    return {}


def _target(options: argparse.Namespace) -> dict[str, Any]:
    _need(options, "metadata_url", "target_name")
    with _Checking(options.metadata_dir):
        info = _refreshed(options).get_targetinfo(options.target_name)
    if info is None:
        raise UpdateError(
            f"{options.target_name} is not among the signed bundles",
            hint="publish it with a signature before it is rolled out",
        )
    digest = info.hashes.get("sha256")
    if digest is None:
        raise UpdateError(f"{options.target_name}: expected a SHA-256 in the metadata, got {sorted(info.hashes)}")
    return {"digest": digest, "size_bytes": info.length}


def _download(options: argparse.Namespace) -> dict[str, Any]:
    _need(options, "metadata_url", "target_name", "target_base_url", "target_dir")
    with _Checking(options.metadata_dir):
        updater = _refreshed(options)
        info = updater.get_targetinfo(options.target_name)
    if info is None:
        raise UpdateError(f"{options.target_name} is not among the signed files")
    with _Checking(options.metadata_dir, of=options.target_name):
        path = updater.find_cached_target(info) or updater.download_target(info)
    return {"path": path}


_VERBS = {"init": _init, "refresh": _refresh, "target": _target, "download": _download}


def _need(options: argparse.Namespace, *names: str) -> None:
    missing = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is None]
    if missing:
        raise ConfigError(f"{options.verb} needs {', '.join(missing)}", hint="see python -m edge.trust --help")


def _refreshed(options: argparse.Namespace) -> "Updater":
    """Return TUF's client with its metadata up to date as of now, or of the latest time known if that is later."""
    updater = _updater(options)
    seen = options.metadata_dir / SEEN
    trusted = updater._trusted_set
    known = _time_in(seen)
    if known is not None and known > trusted.reference_time:
        trusted.reference_time = known
    updater.refresh()
    if known is None or trusted.reference_time > known:
        write_atomic(seen, trusted.reference_time.isoformat().encode())
    return updater


def _time_in(path: Path) -> datetime | None:
    """Return the time that a file holds; None if it is not there or damaged."""
    try:
        return datetime.fromisoformat(path.read_text()).astimezone(UTC)
    except (OSError, ValueError):
        return None


def _updater(options: argparse.Namespace) -> "Updater":
    from tuf.ngclient import Updater
    from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher

    class DurableUpdater(Updater):
        """Its one function that writes is not public; that it is still called is shown by cutting the power."""

        def _persist_file(self, filename: str, data: bytes) -> None:
            write_atomic(Path(filename), data)

    make_directory(options.metadata_dir)
    return DurableUpdater(
        metadata_dir=str(options.metadata_dir),
        metadata_base_url=options.metadata_url or "http://unset.invalid",
        target_dir=str(options.target_dir) if options.target_dir else None,
        target_base_url=options.target_base_url,
        fetcher=Urllib3Fetcher(socket_timeout=SILENCE_S),
        bootstrap=_root(options),
    )


def _root(options: argparse.Namespace) -> bytes | None:
    kept: Path = options.root or options.metadata_dir / "root.json"
    try:
        data = kept.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"no root of trust at {kept}: {error.strerror}", hint="put the control plane's root.json there (cloud.root)"
        ) from error
    return data if options.root else None


class _Checking:
    """`with` it, what TUF raises becomes an error of ours, and what it accepted is made to survive a power cut."""

    def __init__(self, folder: Path, of: str = "the signed metadata") -> None:
        self._folder = folder
        self._of = of

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            _sync(self._folder)
        except OSError as failure:
            error = error or failure
        if error is not None and not isinstance(error, LinesideError):
            ours = _translated(error, self._of)
            if ours is not None:
                raise ours from error


def _sync(folder: Path) -> None:
    for directory in (folder / "root_history", folder):
        for path in directory.glob("*.json"):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        if directory.is_dir():
            sync_directory(directory)


def _translated(error: BaseException, of: str) -> LinesideError | None:
    import urllib3
    from tuf.api import exceptions

    refused: list[tuple[type[Exception], str, str, bool]] = [
        (exceptions.ExpiredMetadataError, "the signed metadata has expired (or this clock is wrong)",
         "look at the device's clock; the control plane must sign anew", True),
        (exceptions.BadVersionNumberError, "the signed metadata is older than what this device has seen",
         "somebody serves an old state: look at the control plane", False),
        (exceptions.UnsignedMetadataError, "the metadata is not signed by the keys that this device trusts",
         "is this the control plane that the device was flashed for?", False),
        (exceptions.LengthOrHashMismatchError, "what came is not what was signed",
         "something altered it on the way or on the server", False),
        (exceptions.DownloadLengthMismatchError, "more came than was signed",
         "something altered it on the way or on the server", False),
        (exceptions.RepositoryError, "the signed metadata cannot be used", "look at the control plane", False),
    ]  # fmt: skip
    for kind, words, hint, retry in refused:
        if isinstance(error, kind):
            return UpdateError(f"{words}: {error}", hint=hint, retry=retry)
    if isinstance(error, exceptions.DownloadError | urllib3.exceptions.HTTPError):
        return LinkError(f"{of} could not be fetched: {_reason(error)}")
    if isinstance(error, OSError):
        return StoreError(f"{of} cannot be kept: {error}")
    return None


def _reason(error: BaseException) -> str:
    from edge.http import for_people

    return for_people(error) if isinstance(error, Exception) else str(error)


def _family(error: LinesideError) -> str:
    return next((name for name, kind in _FAMILIES.items() if isinstance(error, kind)), "update")


if __name__ == "__main__":
    sys.exit(main())
