"""Makes a system that is broken on purpose: the same image, with a daemon that cannot start.

Rules:
- No rights are needed: the root is read and written as a list of what is in it, never laid out on this machine.
- Kernel, initrd and everything else are the same: what is proven is that the daemon's health decides.
"""

import os
import shlex
import subprocess
from pathlib import Path

from firmware_configs.errors import BuildError
from firmware_configs.image.debian import ImageFile, ImageManifest, need_tools
from firmware_configs.image.wheels import sha256

TOOLS = {"unsquashfs": "squashfs-tools", "mksquashfs": "squashfs-tools"}
DROP_IN = "/etc/systemd/system/lineside.service.d/99-broken.conf"
WORDS = "this system is broken on purpose"
TIMEOUT_S = 1800


def break_image(image: ImageManifest, folder: Path, out: Path) -> ImageManifest:
    """Put a broken copy of an image into a folder and return its manifest.

    Raises:
        BuildError: a tool is missing or fails.
    """
    need_tools(TOOLS)
    out.mkdir(parents=True, exist_ok=True)
    content = f'[Service]\\nExecStart=\\nExecStart=/bin/sh -c "echo {WORDS}; exit 1"\\n'
    added = f"{DROP_IN} f 644 0 0 printf {shlex.quote(content)}"
    listed = out / "root.list"
    _tool(["unsquashfs", "-no-progress", "-pf", str(listed), str(folder / "root.squashfs")])
    squash = ["mksquashfs", "-", str(out / "root.squashfs"), "-noappend", "-no-progress", "-quiet", "-comp", "zstd"]
    _tool([*squash, "-Xcompression-level", "3", "-pf", str(listed), "-p", added])
    listed.unlink()
    for name in image.files:
        if name != "root.squashfs":
            (out / name).unlink(missing_ok=True)
            (out / name).symlink_to((folder / name).resolve())
    root = out / "root.squashfs"
    files = {**image.files, "root.squashfs": ImageFile(size_bytes=root.stat().st_size, sha256=sha256(root))}
    manifest = image.model_copy(update={"files": files})
    (out / "manifest.json").write_text(manifest.model_dump_json(indent=1) + "\n")
    return manifest


def _tool(command: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False)
    if done.returncode:
        raise BuildError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-400:]}")
