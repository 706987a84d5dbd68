"""Makes the image of a profile, or finds the one that was made: gathers the inputs, then `debian.build`.

Rules:
- The inputs are the profile, the wheels that the lock file names, this package's own files, and Debian's mirrors.
- The same inputs are found in the cache; what is there is trusted only after its digests are compared.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from firmware_configs.errors import BuildError, ConfigError
from firmware_configs.image import debian, wheels
from firmware_configs.image.recipe import Recipe
from firmware_configs.image.sources import sources_digest
from firmware_configs.profile import Architecture, Profile


@dataclass(frozen=True)
class Inputs:
    """What a person may say about a build; None is found out."""

    wheel: Path | None = None
    lock: Path | None = None
    mirrors: tuple[str, ...] = ()
    epoch: int | None = None


@dataclass(frozen=True)
class Made:
    """An image, and whether it was there already."""

    folder: Path
    manifest: debian.ImageManifest
    cached: bool


@dataclass(frozen=True)
class Compared:
    """An image, and those of its files that a second build of the same inputs made otherwise."""

    made: Made
    differing: tuple[str, ...]


def make_image(profile: Profile, inputs: Inputs, tell: Callable[[str], None], *, anew: bool = False) -> Made:
    """Return the image of a profile.

    Raises:
        ConfigError: nothing is built for this board, or an input is missing.
        BuildError: it cannot be made.
    """
    return _make(profile, inputs, tell, debian.folder_of, use_kept=not anew)


def check_image(profile: Profile, inputs: Inputs, tell: Callable[[str], None]) -> Compared:
    """Make the image if it is not there, make it once more beside it from nothing, and compare the two.

    The second one is kept only if it differs, so that one can look why.

    Raises:
        ConfigError: nothing is built for this board, or an input is missing.
        BuildError: it cannot be made.
    """
    first = make_image(profile, inputs, tell)
    beside = first.folder.with_name(f"again-{first.folder.name}")
    tell("once more, from nothing")
    second = _make(profile, inputs, tell, lambda _recipe: beside)
    names = sorted({*first.manifest.files, *second.manifest.files})
    differing = tuple(n for n in names if first.manifest.files.get(n) != second.manifest.files.get(n))
    if not differing:
        shutil.rmtree(beside)
    return Compared(first, differing)


def _make(
    profile: Profile,
    inputs: Inputs,
    tell: Callable[[str], None],
    place: Callable[[Recipe], Path],
    *,
    use_kept: bool = False,
) -> Made:
    if profile.os is None:
        raise ConfigError(f"{profile.name}: no image is built for it", hint=profile.board.how)
    with tempfile.TemporaryDirectory(prefix="lineside-flash-") as scratch:
        folder = Path(scratch)
        wheel, lock, epoch = gather(inputs, folder)
        tell("wheels")
        found = wheels_for(profile.board.architecture, profile.os, wheel, lock, folder)
        recipe = Recipe(
            profile=profile.name,
            architecture=profile.board.architecture,
            os=profile.os,
            wheels=tuple((path.name, wheels.sha256(path)) for path in found),
            files=tuple(sorted(_own_files())),
            mirrors=inputs.mirrors,
            epoch=epoch,
        )
        there = debian.kept(profile.name, recipe.digest) if use_kept else None
        if there is not None:
            return Made(there, debian.load_image(there), cached=True)
        site = folder / "site"
        wheels.unpack(found, profile.board.architecture, profile.os, site)
        made = debian.build(recipe, found, site, place(recipe), tell, _sources(profile, inputs))
    return Made(made, debian.load_image(made), cached=False)


def gather(inputs: Inputs, scratch: Path) -> tuple[Path, Path, int]:
    """Return the project's wheel, the lock file, and the moment that no file is newer than.

    Raises:
        ConfigError: one was not said and is not here.
        BuildError: the wheel cannot be made.
    """
    root = wheels.project_root()
    lock = inputs.lock or (root / "requirements.lock" if root else None)
    if lock is None or (inputs.wheel is None and root is None):
        raise ConfigError("this is no checkout of the source", hint="give --wheel and --lock")
    wheel = inputs.wheel
    if wheel is None:
        assert root is not None
        wheel = wheels.own_wheel(root, scratch)
    return wheel, lock, _epoch(inputs.epoch, lock)


def wheels_for(architecture: Architecture, target: wheels.Target, wheel: Path, lock: Path, scratch: Path) -> list[Path]:
    """Return the wheels, from the cache if they were downloaded for the same lock file before.

    Raises:
        BuildError: one is not there for the target, or is not the one that the lock names.
    """
    words = "-".join([architecture, target.python, *sorted(target.extras), wheels.sha256(lock)[:16]])
    store = debian.cache_folder() / "wheels" / words
    if not store.is_dir():
        fresh = scratch / "wheels"
        fresh.mkdir()
        for path in wheels.download(wheel, lock, architecture, target, fresh):
            if path.name == wheel.name:
                path.unlink()
        store.parent.mkdir(parents=True, exist_ok=True)
        arriving = store.with_name(f".{store.name}.{os.getpid()}")
        shutil.copytree(fresh, arriving)
        arriving.rename(store)
    return sorted([*store.glob("*.whl"), wheel], key=lambda path: path.name)


def _sources(profile: Profile, inputs: Inputs) -> str | None:
    root = wheels.project_root()
    own = root is not None and inputs.wheel is None and inputs.lock is None
    return sources_digest(profile, root) if root is not None and own else None


def _own_files() -> list[tuple[str, str]]:
    files = {**debian.overlay_files(), **{f"scripts/{name}": path for name, path in debian.script_files().items()}}
    return [(name, wheels.sha256(path)) for name, path in files.items()]


def _epoch(given: int | None, lock: Path) -> int:
    """Return the moment that no file is newer than: what was said, or the last change of the lock file."""
    said = given if given is not None else os.environ.get("SOURCE_DATE_EPOCH")
    if said is not None:
        return int(said)
    asked = ["git", "-C", str(lock.parent), "log", "-1", "--format=%ct", "--", lock.name]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
    except OSError as error:
        raise BuildError("git is missing, and no moment was said", hint="set SOURCE_DATE_EPOCH") from error
    return int(told) if told.isdigit() else int(lock.stat().st_mtime)
