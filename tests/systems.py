"""Small operating systems for tests, packed by hand, so that the packer and the reader are held against each other."""

import hashlib
import io
import zipfile
from dataclasses import dataclass

from edge.wire.base import BundleRef
from edge.wire.manifest import MANIFEST_NAME, FileEntry
from edge.wire.osimage import INITRD, KERNEL, OsManifest, os_name

PROFILE = "x86-box"


@dataclass(frozen=True)
class System:
    """A packed system."""

    data: bytes
    ref: BundleRef

    @property
    def path(self) -> str:
        """Where a control plane serves it."""
        return f"/tuf/targets/{self.ref.digest}.{self.ref.target_path}"


def system(version: str = "1.1.0", *, profile: str = PROFILE, root_bytes: int = 50_000, kernel: bytes = b"") -> System:
    """Return a system whose root is noise."""
    block = hashlib.sha256(f"{profile} {version}".encode()).digest()
    root = (block * (root_bytes // 32 + 1))[:root_bytes]
    files = {KERNEL: kernel or b"kernel of " + version.encode() * 100, INITRD: b"initrd of " + version.encode() * 300}
    manifest = OsManifest(
        kind="os",
        name=os_name(profile),
        version=version,
        created_at="2026-11-28T12:00:00Z",
        profile=profile,
        architecture="amd64",
        root=entry(root),
        files={name: entry(content) for name, content in files.items()},
    )
    return packed(manifest, root, files)


def packed(manifest: OsManifest, root: bytes, files: dict[str, bytes]) -> System:
    """Return these parts as one file, whether they belong together or not."""
    file = io.BytesIO(root)
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(MANIFEST_NAME), manifest.model_dump_json())
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    data = file.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    ref = BundleRef(name=manifest.name, version=manifest.version, digest=digest, size_bytes=len(data), kind="os")
    return System(data, ref)


def entry(content: bytes) -> FileEntry:
    """Return how a manifest lists a file."""
    return FileEntry(digest=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
