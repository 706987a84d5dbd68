"""Tells whether a kept image is made of what this checkout holds, without making a wheel or asking a mirror.

Rules:
- What counts is what gets into an image: the packages of a device, the lock file, the profile's own part. Documents and
  what compilers leave behind do not.
- Debian's packages are not looked at: a mirror's news alone make no image an older one.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from firmware_configs.image.debian import ImageManifest, cache_folder
from firmware_configs.image.wheels import project_root
from firmware_configs.profile import Profile

PACKAGES = ("edge", "firmware_configs")
FILES = ("pyproject.toml", "requirements.lock")


@dataclass(frozen=True)
class Kept:
    """An image of a profile in the cache."""

    folder: Path
    present: bool
    """Made of what this checkout holds, as far as that can be told."""

    @property
    def words(self) -> str:
        """What a person should know who uses it."""
        return "" if self.present else f"{self.folder} is an older image: `lineside-flash build` makes the present one"


def sources_digest(profile: Profile, root: Path) -> str:
    """Return the SHA-256 over all that an image of this profile is made of besides Debian's packages."""
    about = {"profile": profile.name, "os": profile.os.model_dump() if profile.os else None}
    hashed = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for path in _files(root):
        hashed.update(f"{path.relative_to(root)}\0".encode())
        hashed.update(hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()


def kept_image(profile: Profile, root: Path | None = None) -> Kept | None:
    """Return the image to take: one of the present sources if there is one, else the newest; None if there is none."""
    checkout = root or project_root()
    digest = sources_digest(profile, checkout) if checkout else None
    found = []
    for path in cache_folder().glob(f"{profile.name}-????????????????/manifest.json"):
        manifest = ImageManifest.model_validate_json(path.read_text())
        present = digest is None or manifest.sources == digest
        found.append((present, path.stat().st_mtime, path.parent))
    if not found:
        return None
    present, _, folder = max(found)
    return Kept(folder, present)


def _files(root: Path) -> Iterator[Path]:
    yield from (root / name for name in FILES)
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".pyc", ".md"):
                yield path
