"""Makes a root image from Debian's packages and keeps it: one folder per recipe, whole or not there.

Rules:
- No rights are needed: mmdebstrap works in a user's own namespace, the root goes through a pipe into the squashfs.
- A folder of the cache appears by a rename when all its files are there; a build that was ended leaves nothing.
- Every file of the image is named with its SHA-256 in `manifest.json`, which whoever writes it compares.
"""

import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from edge.wire.base import Digest, Version
from firmware_configs.errors import BuildError
from firmware_configs.image import bill
from firmware_configs.image.recipe import MACHINES, Recipe, bootstrap_command, initrd_modules, squash_command
from firmware_configs.image.wheels import sha256
from firmware_configs.profile import Architecture

HERE = Path(__file__).parent
ROOTFS = HERE.parent / "rootfs"
UNITS = HERE.parent / "systemd"
TOOLS = {"mmdebstrap": "mmdebstrap", "sqfstar": "squashfs-tools"}
FOREIGN_TOOLS = {"arch-test": "arch-test"}
"""For another processor than this machine's."""
INTERPRETERS = {"amd64": "qemu-x86_64-static", "arm64": "qemu-aarch64-static"}
EARLY = "etc/initramfs-tools"
"""Laid over before the kernel is set up, because setting it up makes an initrd."""
IMAGE_FILES = ("root.squashfs", "vmlinuz", "initrd", "boot.efi")
TIMEOUT_S = 3 * 3600
"""A root for another processor, made under emulation on a busy machine, takes an hour."""


class ImageFile(BaseModel):
    """One file of an image."""

    model_config = ConfigDict(frozen=True)

    size_bytes: int
    sha256: Digest


class ImageManifest(BaseModel):
    """`manifest.json`: what an image consists of."""

    model_config = ConfigDict(frozen=True)

    format: int = 1
    profile: str
    architecture: str
    recipe: Digest
    epoch: int
    version: Version = "0.0.0"
    """Of the program in it: under which it is rolled out unless another one is said."""
    sources: Digest | None = None
    """Of what it is made of (`image/sources.py`); None where that was not a checkout's own."""
    files: dict[str, ImageFile]

    @property
    def root(self) -> ImageFile:
        """The squashfs, whose digest is the image's name."""
        return self.files["root.squashfs"]


def cache_folder() -> Path:
    """Return where images are kept: `LINESIDE_FLASH_CACHE`, or the user's cache."""
    own = os.environ.get("LINESIDE_FLASH_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(own) if own else base / "lineside-flash"


def kept(profile: str, digest: str) -> Path | None:
    """Return the kept image of this recipe; None if there is none."""
    path = cache_folder() / f"{profile}-{digest[:16]}"
    return path if (path / "manifest.json").is_file() else None


def overlay_files() -> dict[str, Path]:
    """Return everything that is laid over the packages, by its path in the root."""
    files = {str(path.relative_to(ROOTFS)): path for path in sorted(ROOTFS.rglob("*")) if path.is_file()}
    return files | {"usr/lib/systemd/system/lineside.service": UNITS / "lineside.service"}


def script_files() -> dict[str, Path]:
    """Return the scripts that finish a root."""
    return {path.name: path for path in sorted(HERE.glob("*.sh"))}


def folder_of(recipe: Recipe) -> Path:
    """Return where the image of a recipe is kept."""
    return cache_folder() / f"{recipe.profile}-{recipe.digest[:16]}"


def build(
    recipe: Recipe,
    wheels: list[Path],
    site: Path,
    final: Path,
    tell: Callable[[str], None],
    sources: str | None = None,
) -> Path:
    """Make the image and return its folder.

    Args:
        recipe: what to make.
        wheels: the wheels in it, for the bill.
        site: the folder that Python imports from.
        final: where it appears when it is whole, on the cache's file system.
        tell: is told what happens, a line at a time.
        sources: digest of the checkout that it is made of, for whoever looks for a present one.

    Raises:
        BuildError: a tool is missing or fails; its own words are in the message.
    """
    need_tools(TOOLS)
    need_processor(recipe.architecture)
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=cache_folder()) as scratch:
        work, out = Path(scratch) / "work", Path(scratch) / "out"
        work.mkdir()
        out.mkdir()
        Path(scratch).chmod(0o755)  # whoever mmdebstrap becomes reads from here
        _write_early(work / "early.tar", recipe)
        _write_overlay(work / "overlay.tar", recipe, site)
        tell(f"packages of {recipe.os.suite} for {recipe.architecture}")
        _make_root(recipe, work, out)
        tell("bill of materials")
        _write_bill(recipe, wheels, out)
        _write_manifest(recipe, out, sources)
        shutil.rmtree(final, ignore_errors=True)
        out.rename(final)
    return final


def load_image(folder: Path) -> ImageManifest:
    """Return an image's manifest, its files compared with it.

    Raises:
        BuildError: a file is missing or is another one.
    """
    try:
        manifest = ImageManifest.model_validate_json((folder / "manifest.json").read_text())
        wrong = [name for name, file in manifest.files.items() if sha256(folder / name) != file.sha256]
    except (OSError, ValueError) as error:
        raise BuildError(f"{folder} is no image: {error}", hint="lineside-flash build PROFILE makes one") from error
    if wrong or set(manifest.files) != set(IMAGE_FILES):
        named = ", ".join(wrong) or "some files are missing"
        raise BuildError(f"{folder}: not what its manifest says: {named}", hint="remove the folder and build again")
    return manifest


def need_tools(tools: dict[str, str]) -> None:
    """Raise a BuildError that names every program that is missing, with its Debian package."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = sorted(package for program, package in tools.items() if shutil.which(program, path=path) is None)
    if missing:
        raise BuildError(f"missing: {', '.join(missing)}", hint=f"apt-get install {' '.join(missing)}")


def need_processor(architecture: Architecture) -> None:
    """Raise a BuildError with what to do if programs of this processor do not run here."""
    if platform.machine() == MACHINES[architecture]:
        return
    interpreter = INTERPRETERS[architecture]
    need_tools({**FOREIGN_TOOLS, interpreter: "qemu-user-static"})
    runs = subprocess.run(["arch-test", architecture], capture_output=True, timeout=60, check=False).returncode == 0
    if not runs:
        raise BuildError(
            f"programs for {architecture} do not run on this machine, and packages run some while they are set up",
            hint=f"register {interpreter} with the kernel: apt-get install binfmt-support, or systemctl restart "
            "systemd-binfmt; in a container, mount binfmt_misc on /proc/sys/fs/binfmt_misc first",
        )


def _make_root(recipe: Recipe, work: Path, out: Path) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(recipe.epoch), "LC_ALL": "C", "PYTHONHASHSEED": "0"}
    environment.pop("PYTHONPATH", None)
    command = bootstrap_command(recipe, str(out), str(work), str(HERE))
    with (work / "making").open("wb") as said, (work / "squashing").open("wb") as said_after:
        making = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=environment)
        squashing = subprocess.Popen(
            squash_command(str(out / "root.squashfs")),
            stdin=making.stdout,
            stdout=said_after,
            stderr=said_after,
            env=environment,
        )
        assert making.stdout is not None
        making.stdout.close()
        try:
            codes = [squashing.wait(TIMEOUT_S), making.wait(TIMEOUT_S)]
        finally:
            for process in (making, squashing):
                if process.poll() is None:
                    process.kill()
                    process.wait()
    if any(codes):
        told = [*_last_lines(work / "making", 12), *_last_lines(work / "squashing", 4)]
        raise BuildError("the root cannot be made:\n  " + "\n  ".join(told))


def _last_lines(path: Path, count: int) -> list[str]:
    return [line for line in path.read_text(errors="replace").splitlines() if line.strip()][-count:]


def _write_early(path: Path, recipe: Recipe) -> None:
    entries = {name: source for name, source in overlay_files().items() if name.startswith(EARLY)}
    with tarfile.open(path, "w") as archive:
        _add_all(archive, entries, recipe.epoch)
        _add(archive, f"{EARLY}/modules", initrd_modules(recipe.os).encode(), 0o644, recipe.epoch)


def _write_overlay(path: Path, recipe: Recipe, site: Path) -> None:
    entries = {name: source for name, source in overlay_files().items() if not name.startswith(EARLY)}
    installed = {f"opt/lineside/site/{file.relative_to(site)}": file for file in site.rglob("*") if file.is_file()}
    with tarfile.open(path, "w") as archive:
        _add_all(archive, entries | installed, recipe.epoch)


def _add_all(archive: tarfile.TarFile, entries: dict[str, Path], epoch: int) -> None:
    folders = {str(parent) for name in entries for parent in Path(name).parents if str(parent) != "."}
    for folder in sorted(folders):
        info = tarfile.TarInfo(folder)
        info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, epoch
        archive.addfile(info)
    for name, source in sorted(entries.items()):
        mode = 0o755 if source.stat().st_mode & 0o100 else 0o644
        _add(archive, name, source.read_bytes(), mode, epoch)


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int, epoch: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(content), mode, epoch
    archive.addfile(info, io.BytesIO(content))


def _write_bill(recipe: Recipe, wheels: list[Path], out: Path) -> None:
    status, archive = out / "dpkg-status", out / "copyright.tar"
    components = bill.debian_components(status.read_text(), dict(_copyrights(archive)))
    components += [bill.wheel_component(_metadata(wheel)) for wheel in wheels]
    document = bill.cyclonedx(recipe.profile, sha256(out / "root.squashfs"), components)
    (out / "bill.cdx.json").write_text(_as_json(document))
    (out / "licences.tsv").write_text(bill.licence_list(components))
    status.unlink()
    archive.unlink()


def _copyrights(archive: Path) -> Iterable[tuple[str, str]]:
    with tarfile.open(archive) as opened:
        for member in opened:
            parts = Path(member.name).parts
            if member.isfile() and parts[-1] == "copyright":
                file = opened.extractfile(member)
                assert file is not None
                yield parts[-2], file.read().decode(errors="replace")


def _metadata(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = [name for name in opened.namelist() if name.count("/") == 1 and name.endswith(".dist-info/METADATA")]
        return opened.read(name).decode(errors="replace")


def _write_manifest(recipe: Recipe, out: Path, sources: str | None) -> None:
    files = {name: ImageFile(size_bytes=(out / name).stat().st_size, sha256=sha256(out / name)) for name in IMAGE_FILES}
    manifest = ImageManifest(
        profile=recipe.profile,
        architecture=recipe.architecture,
        recipe=recipe.digest,
        epoch=recipe.epoch,
        version=recipe.version,
        sources=sources,
        files=files,
    )
    (out / "manifest.json").write_text(manifest.model_dump_json(indent=1) + "\n")


def _as_json(document: object) -> str:
    return json.dumps(document, indent=1, sort_keys=True) + "\n"
