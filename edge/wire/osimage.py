"""The manifest of an operating system: all that a device must know to put it into its other slot and start it.

A bundle of kind `os` is one file: the root (a squashfs, whole, from the first byte), then a ZIP archive with
`manifest.json`, kernel and initrd, stored as they are. So it can be written to a partition as it comes: the kernel
mounts the root at its beginning and never looks behind it, and any ZIP reader finds the rest from its end. It is named
`{name}-{version}.lsb` and identified by the SHA-256 of all its bytes, as a model's bundle is.

Rules:
- The name of a profile's systems is `os-{profile}`: a device takes no other.
- Programs are part of it: there is one thing to test, one to roll out, one to go back to.
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from edge.wire.base import Name, Version, WireModel
from edge.wire.manifest import FileEntry, FileName

OS_FORMAT: Literal[1] = 1
KERNEL, INITRD = "vmlinuz", "initrd"
MAX_OS_BYTES = 512 * 2**20
"""Largest system: a root of 350 MB with its kernel and initrd, and room to grow."""
MAX_BOOT_FILE_BYTES = 64 * 2**20
"""Largest kernel or initrd: the boot partition holds two of each."""


class OsManifest(WireModel):
    """`manifest.json` of an operating system."""

    format: Literal[1] = OS_FORMAT
    kind: Literal["os"]
    name: Name
    version: Version
    description: str = ""
    created_at: str
    """ISO 8601, UTC."""
    profile: str = Field(min_length=1, max_length=64)
    """The kind of device that it was made for."""
    architecture: Literal["amd64", "arm64"]
    root: FileEntry
    """The squashfs at the beginning of the file."""
    files: dict[FileName, FileEntry]
    """The members of the archive behind it."""
    lineage: dict[str, Any] = Field(default_factory=dict)
    """Digest of the recipe, and whatever else says where it comes from."""

    @model_validator(mode="after")
    def _consistent(self) -> "OsManifest":
        if set(self.files) != {KERNEL, INITRD}:
            raise ValueError(f"files: expected {KERNEL} and {INITRD}, got {', '.join(sorted(self.files)) or 'none'}")
        large = [name for name, file in self.files.items() if not 0 < file.size_bytes <= MAX_BOOT_FILE_BYTES]
        if large:
            raise ValueError(f"{large[0]}: expected 1 to {MAX_BOOT_FILE_BYTES} bytes")
        if not 0 < self.root.size_bytes <= MAX_OS_BYTES:
            raise ValueError(f"root: expected 1 to {MAX_OS_BYTES} bytes, got {self.root.size_bytes}")
        if self.name != os_name(self.profile):
            raise ValueError(f"name: expected {os_name(self.profile)} for profile {self.profile}, got {self.name}")
        return self


def os_name(profile: str) -> str:
    """Return the name under which the systems of a kind of device are published."""
    return f"os-{profile}"
