"""`lineside-flash inject`: a stock system's image becomes that of one device, or a seed is made for it.

Rules:
- The image that was given stays as it is; the new one appears when it is whole.
- What a device of our own image carries is carried here too, and wheels for the stock system's own Python besides.
"""

import hashlib
import io
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from firmware_configs.commands.shared import as_json, note, say, size_bytes
from firmware_configs.commands.write import Order, wanted
from firmware_configs.errors import RefusedError
from firmware_configs.image.debian import overlay_files
from firmware_configs.image.make import Inputs, gather, wheels_for
from firmware_configs.profile import find_profile
from firmware_configs.seed import Seed, Wanted
from firmware_configs.stock import (
    COMPILING,
    SEED_FOLDER,
    SEED_LABEL,
    UNITS,
    Stock,
    Target,
    cloud_init,
    enabled_links,
    seed_mount,
    stock_seed,
    sums,
    target_of,
)
from firmware_configs.stockimage import (
    CLUSTER_SLACK_BYTES,
    Looked,
    add_volume,
    copy,
    look,
    make_fat,
    needed_bytes,
    put,
    volume_number,
)

STOCKFS = Path(__file__).parents[1] / "stockfs"
MIB = 2**20
VOLUME_MIN_BYTES = 64 * MIB
"""A FAT32 wants 65,525 clusters."""
PAYLOAD_LABEL = "LINESIDE"
"""Of a partition for the payload alone: cloud-init must not take it for a second seed."""


@dataclass(frozen=True)
class Injection:
    """All that a person says besides what an order has."""

    order: Order
    image: Path | None
    """None: a seed of its own is made, for a system that is there already."""
    system: str | None = None
    """Codename of that system, where there is no image to look into."""
    inputs: Inputs = field(default_factory=Inputs)


def run(injection: Injection) -> int:
    """Put the seed where it belongs and print what was done; return 0."""
    say(as_json(inject(injection)))
    return 0


def inject(injection: Injection) -> dict[str, object]:
    """Put the seed where it belongs and return what was done.

    Raises:
        ConfigError: something that was said is wrong, or the image cannot be used.
        RefusedError: there is no room, or the target is there already.
        BuildError: wheels cannot be had, or a tool fails.
    """
    order, began_s = injection.order, time.monotonic()
    if order.to.exists() and not order.replace:
        raise RefusedError(f"{order.to} is there already", hint="--replace writes over it")
    profile, says = find_profile(order.profile), wanted(order)
    seed = stock_seed(profile, says)
    looked = look(injection.image) if injection.image is not None else None
    stock = looked.stock if looked else Stock(injection.system or "", profile.board.architecture, cloud_init=True)
    target = target_of(profile, stock)
    with tempfile.TemporaryDirectory(prefix="lineside-flash-") as scratch:
        note(f"wheels for {target.suite}, Python {target.python}, {stock.architecture} …")
        payload = _payload(injection, target, stock, seed, Path(scratch))
        partial = order.to.with_name(f".{order.to.name}.new")
        try:
            where = (
                _onto_image(injection.image, looked, partial, order, says, seed, payload, Path(scratch))
                if looked is not None and injection.image is not None
                else _own_volume(partial, says, seed, payload, Path(scratch))
            )
            partial.replace(order.to)
            size = sum(path.stat().st_size for path in payload.values())
        finally:
            partial.unlink(missing_ok=True)
    claim = hashlib.sha256(says.claim.encode()).hexdigest() if says.claim else None
    return {
        "device": order.device, "site": order.site, "profile": profile.name, "seed": seed.identity, "to": str(order.to),
        "system": target.suite, "python": target.python, "architecture": stock.architecture, "where": where,
        "payload_bytes": size, "claim_sha256": claim,
        "cloud": says.cloud, "seconds": round(time.monotonic() - began_s, 1),
    }  # fmt: skip


def _payload(injection: Injection, target: Target, stock: Stock, seed: Seed, scratch: Path) -> dict[str, Path]:
    """Return everything in the seed's folder but what depends on where it lies, by its path on the volume."""
    wheel, lock, _ = gather(injection.inputs, scratch)
    found = {f"wheels/{path.name}": path for path in wheels_for(stock.architecture, target, wheel, lock, scratch)}
    placed = {name: _kept(scratch / "seed" / name, content) for name, content in seed.files.items()}
    return {
        f"{SEED_FOLDER}/{name}": path
        for name, path in {**found, **placed, "install.sh": STOCKFS / "install.sh"}.items()
    }


def _onto_image(
    image: Path, looked: Looked, to: Path, order: Order, says: Wanted, seed: Seed, payload: dict[str, Path],
    scratch: Path,
) -> str:  # fmt: skip
    need = needed_bytes(payload) + CLUSTER_SLACK_BYTES * 8
    copy(image, to, size_bytes(order.size) if order.size else None)
    boot = looked.boot
    if boot is not None and boot.free >= need:
        volume, where = boot, f"its boot partition ({boot.number})"
    else:
        size = max(VOLUME_MIN_BYTES, -(-need * 11 // 10 // MIB) * MIB)
        volume = add_volume(to, looked.table, size, SEED_LABEL if boot is None else PAYLOAD_LABEL)
        where = f"a partition of its own ({volume.number})"
    put(to, volume.start, payload | _system(volume.uuid, payload, scratch))
    seeded = boot or volume
    put(to, seeded.start, _written(scratch / "nocloud", cloud_init(says, seed, volume.uuid)))
    return where


def _own_volume(to: Path, says: Wanted, seed: Seed, payload: dict[str, Path], scratch: Path) -> str:
    need = needed_bytes(payload) + CLUSTER_SLACK_BYTES * 8
    make_fat(to, max(VOLUME_MIN_BYTES, -(-need * 11 // 10 // MIB) * MIB))
    number = volume_number(to)
    put(to, 0, payload | _system(number, payload, scratch))
    put(to, 0, _written(scratch / "nocloud", cloud_init(says, seed, number)))
    return "a seed of its own: attach it as a disk"


def _system(volume: str, payload: dict[str, Path], scratch: Path) -> dict[str, Path]:
    """Return the units as an archive, and the sums of all that `install.sh` takes in."""
    archive = _kept(scratch / "system.tar", _archive(volume))
    taken = {name.removeprefix(f"{SEED_FOLDER}/"): path for name, path in payload.items() if "/wheels/" in name}
    listed = {name: path.read_bytes() for name, path in {**taken, "system.tar": archive}.items()}
    return {
        f"{SEED_FOLDER}/system.tar": archive,
        f"{SEED_FOLDER}/SHA256SUMS": _kept(scratch / "SHA256SUMS", sums(listed)),
    }


def _archive(volume: str) -> bytes:
    units, buffer = overlay_files(), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in UNITS:
            mode = 0o755 if "/bin/" in name else 0o644
            _add(archive, tarfile.TarInfo(name), mode, units[name].read_bytes())
        _add(archive, tarfile.TarInfo(COMPILING), 0o644, (STOCKFS / Path(COMPILING).name).read_bytes())
        _add(archive, tarfile.TarInfo("etc/systemd/system/efi.mount"), 0o644, seed_mount(volume).encode())
        for name, target in {**enabled_links(), "etc/lineside": "/data/lineside"}.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            _add(archive, link, 0o777, b"")
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, info: tarfile.TarInfo, mode: int, content: bytes) -> None:
    info.mode, info.size = mode, len(content)
    archive.addfile(info, io.BytesIO(content))


def _written(folder: Path, files: dict[str, str]) -> dict[str, Path]:
    return {name: _kept(folder / name, text.encode()) for name, text in files.items()}


def _kept(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
