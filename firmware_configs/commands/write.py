"""`lineside-flash write`: one card, from an image and what is said about one device, written and read back.

Rules:
- A disk is written only after it was looked at twice (before the question and after it) and its name was typed.
- A file is written as a disk of the size that was asked for; one that is there already is not replaced unasked.
- `--dry-run` says every range of bytes and touches nothing.
"""

import hashlib
import io
import stat
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from edge.wire.manifest import MANIFEST_NAME, Manifest
from firmware_configs.commands.list import remembered
from firmware_configs.commands.shared import as_json, note, progress_shown, say, size_bytes
from firmware_configs.compose import Composed, boot_files_bytes, compose
from firmware_configs.disks import Disk, find_disk, refusals
from firmware_configs.errors import ConfigError, RefusedError
from firmware_configs.image.debian import ImageManifest, load_image
from firmware_configs.image.sources import kept_image
from firmware_configs.layout import needed_bytes
from firmware_configs.pack import ref_of
from firmware_configs.profile import Profile, find_profile
from firmware_configs.receipt import Medium as MediumNote
from firmware_configs.receipt import Receipt, WrittenRegion
from firmware_configs.seed import PICTURE_SUFFIXES, Seed, Wanted, make_seed
from firmware_configs.writer import Medium, Written, write_disk


@dataclass(frozen=True)
class Order:
    """All that a person says."""

    profile: str
    to: Path
    device: str
    site: str
    cloud: str | None = None
    claim: str | None = None
    """The token, or @FILE with it: what stands on a command line others on this machine can read."""
    bundles: list[Path] = field(default_factory=list)
    model: str | None = None
    stations: Path | None = None
    root: Path | None = None
    inputs: Path | None = None
    ssh_key: Path | None = None
    wifi: str | None = None
    size: str = "4G"
    image: Path | None = None
    fixed_disk: bool = False
    confirm: str | None = None
    dry_run: bool = False
    replace: bool = False
    receipt: Path | None = None
    kernel_options: str = ""


def run(order: Order) -> int:
    """Write the card and print its receipt, or what would be written; return 0."""
    answer = write_card(order)
    say(answer.model_dump_json(indent=1) if isinstance(answer, Receipt) else as_json(answer))
    return 0


def write_card(order: Order) -> Receipt | dict[str, object]:
    """Write the card and return its receipt; with `dry_run`, write nothing and return what would be written.

    Raises:
        ConfigError: something that was said is wrong.
        RefusedError: the target must not be written.
        BuildError: there is no image.
        MediumError: the medium does not take or give back what is written.
    """
    profile = find_profile(order.profile)
    folder = image_of(profile, order.image)
    image, seed = load_image(folder), make_seed(profile, wanted(order))
    if image.profile != profile.name:
        raise ConfigError(f"{folder} is an image of {image.profile}, not of {profile.name}")
    need = max(
        needed_bytes(image.root.size_bytes, boot_files_bytes(image, seed)), round(profile.board.disk_min_gb * 1e9)
    )
    total, disk = _target(order, need)
    with tempfile.TemporaryDirectory(prefix="lineside-flash-") as scratch:
        more, system = order.kernel_options, ref_of(image, folder, image.version)
        composed = compose(profile, image, folder, seed, order.device, total, Path(scratch), system, more)
        if order.dry_run:
            return _plan(order, composed)
        if disk is not None:
            _confirm(order, disk, need)
        began_s = time.monotonic()
        written = _write(order, composed, disk)
        receipt = _receipt(order, profile, image, seed, composed, written, disk, time.monotonic() - began_s)
    if order.receipt is not None:
        order.receipt.write_text(receipt.model_dump_json(indent=1) + "\n")
    return receipt


def wanted(order: Order) -> Wanted:
    """Read the files that an order names.

    Raises:
        ConfigError: one cannot be read, or is not what it should be.
    """
    bundles = {path.name: _bytes(path) for path in order.bundles}
    wifi = None
    if order.wifi is not None:
        name, _, passphrase = order.wifi.partition(":")
        wifi = (name, passphrase)
    return Wanted(
        device=order.device,
        site=order.site,
        cloud=order.cloud,
        claim=_claim(order.claim),
        model=order.model or (model_of(order.bundles[0], bundles[order.bundles[0].name]) if order.bundles else None),
        stations=_bytes(order.stations).decode() if order.stations else None,
        root=_bytes(order.root) if order.root else None,
        bundles=bundles,
        inputs={path.name: _bytes(path) for path in pictures_in(order.inputs)} if order.inputs else {},
        ssh_keys=tuple(_bytes(order.ssh_key).decode().split("\n")[:-1]) if order.ssh_key else (),
        wifi=wifi,
    )


def image_of(profile: Profile, said: Path | None) -> Path:
    """Return the folder of the image that is meant: what was said, or the profile's present one, or the newest.

    Raises:
        ConfigError: there is none.
    """
    if profile.os is None:
        raise ConfigError(f"{profile.name}: nothing is written for it", hint=profile.board.how)
    if said is not None:
        return said
    found = kept_image(profile)
    if found is None:
        raise ConfigError(f"there is no image of {profile.name} yet", hint=f"lineside-flash build {profile.name}")
    if not found.present:
        note(found.words)
    return found.folder


def model_of(path: Path, content: bytes) -> str:
    """Return the name of a bundle's model.

    Raises:
        ConfigError: it is no bundle.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return Manifest.model_validate_json(archive.read(MANIFEST_NAME)).name
    except (zipfile.BadZipFile, KeyError, ValidationError, OSError) as error:
        raise ConfigError(f"{path} is no bundle: {error}") from error


def _target(order: Order, need: int) -> tuple[int, Disk | None]:
    """Return the size of the target, and the disk if it is one."""
    path = order.to
    if path.exists() and stat.S_ISBLK(path.stat().st_mode):
        disk = find_disk(str(path))
        _refuse(disk, refusals(disk, need, fixed=order.fixed_disk, listed=remembered(disk.node)))
        return disk.size_bytes, disk
    if str(path.resolve()).startswith("/dev/"):
        raise RefusedError(f"{path} is no disk", hint="lineside-flash list shows those that are there")
    if path.exists() and not order.replace and not order.dry_run:
        raise RefusedError(f"{path} is there already", hint="--replace writes over it")
    total = size_bytes(order.size)
    if total < need:
        raise RefusedError(f"{order.size} are too small: {need / 1e9:.2f} GB are needed", hint="say a larger --size")
    return total, None


def _refuse(disk: Disk, reasons: list[str]) -> None:
    if reasons:
        named = f"{disk.node} ({disk.model or 'no model'}, {disk.size_bytes / 1e9:.1f} GB)"
        raise RefusedError("\n".join([f"{named} is not written:", *(f"  {reason}" for reason in reasons)]))


def _confirm(order: Order, disk: Disk, need: int) -> None:
    """Let a person type the disk's name, and look at the disk once more."""
    expected = disk.name_to_type
    typed = order.confirm
    if typed is None and sys.stdin.isatty():
        note(f"Everything on {disk.node} ({disk.size_bytes / 1e9:.1f} GB, serial {disk.serial or '–'}) will be lost.")
        note(f"Type its model to go on: {expected}")
        typed = sys.stdin.readline().strip()
    if typed != expected:
        raise RefusedError(
            f"{disk.node} is not written: expected its model {expected!r}, got {typed!r}", hint="--confirm"
        )
    now = find_disk(disk.node)
    _refuse(now, refusals(now, need, fixed=order.fixed_disk, listed=disk))


def _write(order: Order, composed: Composed, disk: Disk | None) -> list[Written]:
    if disk is None:
        with order.to.open("wb") as file:
            file.truncate(composed.layout.total)
    medium = Medium(order.to)
    try:
        return write_disk(medium, composed, progress_shown())
    finally:
        medium.close()


def _plan(order: Order, composed: Composed) -> dict[str, object]:
    total = composed.layout.total
    cleared = [{"name": "old table", "from": at, "to": at + 2**20} for at in (0, total - 2**20)]
    regions = [
        {"name": r.name, "from": r.offset, "to": r.offset + r.size} for r in [*composed.content, *composed.table]
    ]
    return {"target": str(order.to), "size_bytes": total, "written": [*cleared, *regions], "kernel": composed.options}


def _receipt(
    order: Order,
    profile: Profile,
    image: ImageManifest,
    seed: Seed,
    composed: Composed,
    written: list[Written],
    disk: Disk | None,
    seconds: float,
) -> Receipt:
    total, claim = composed.layout.total, _claim(order.claim)
    medium = MediumNote(
        path=str(order.to),
        size_bytes=total,
        model=disk.model if disk else "",
        serial=disk.serial if disk else "",
    )
    return Receipt(
        device=order.device,
        site=order.site,
        profile=profile.name,
        seed=seed.identity,
        image=image.root.sha256,
        cloud=order.cloud,
        claim_sha256=hashlib.sha256(claim.encode()).hexdigest() if claim else None,
        bundles={path.name: hashlib.sha256(_bytes(path)).hexdigest() for path in order.bundles},
        machine_id=composed.layout.machine_id,
        disk=composed.layout.disk_uuid,
        medium=medium,
        regions=[WrittenRegion(name=w.name, offset=w.offset, size=w.size, sha256=w.sha256) for w in written],
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 2),
    )


def _claim(said: str | None) -> str | None:
    if said is not None and said.startswith("@"):
        return _bytes(Path(said[1:])).decode().strip()
    return said


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures and sounds in a folder, by name.

    Raises:
        ConfigError: it is none, or holds none.
    """
    if not folder.is_dir():
        raise ConfigError(f"--inputs: expected a folder, got {folder}")
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURE_SUFFIXES]
    if not paths:
        raise ConfigError(f"--inputs: {folder} holds no file with one of {', '.join(PICTURE_SUFFIXES)}")
    return paths


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}") from error
