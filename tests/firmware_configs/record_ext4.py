"""Makes `ext4.tar.xz`: a small ext4 with a log of every write to it, while the device's own code keeps a record there.

Run as root, once: `python -m tests.firmware_configs.record_ext4`. Needs qemu-storage-daemon, mke2fs and a loop device:
QEMU keeps the log, Linux's ext4 does the writing, so that tests replay what a kernel really does.
"""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

from edge.clock import SystemClock
from edge.slotfile import SlotFile
from edge.slots import preloaded
from edge.store import Store
from edge.wire.base import BundleRef
from tests.bundles import bundle_bytes
from tests.rows import decision

HERE = Path(__file__).parent
SIZE_BYTES = 16 * 2**20
DECISIONS = 30
MKFS = ["mke2fs", "-q", "-t", "ext4", "-J", "size=2", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"]


def main() -> None:
    """Record, and pack base, log and what was promised."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base, disk, export, mount = (folder / name for name in ("base.img", "disk.img", "export", "mnt"))
        with base.open("wb") as file:
            file.truncate(SIZE_BYTES)
        subprocess.run([*MKFS, str(base)], check=True)
        shutil.copy(base, disk)
        mount.mkdir()
        export.touch()
        log = folder / "writes.log"
        log.touch()
        daemon = subprocess.Popen(_command(disk, log, export))
        while export.stat().st_size != SIZE_BYTES:
            time.sleep(0.05)
        subprocess.run(["mount", "-o", "loop,commit=1", str(export), str(mount)], check=True)
        try:
            seen = _live(mount / "lineside" / "data", log)
        finally:
            subprocess.run(["umount", str(mount)], check=True)
            daemon.terminate()
            daemon.wait()
        (folder / "seen.json").write_text(json.dumps(seen))
        with tarfile.open(HERE / "ext4.tar.xz", "w:xz") as archive:
            for name in ("base.img", "writes.log", "seen.json"):
                archive.add(folder / name, name)


def _command(disk: Path, log: Path, export: Path) -> list[str]:
    return [
        "qemu-storage-daemon",
        "--blockdev", f"driver=file,filename={disk},node-name=f0",
        "--blockdev", f"driver=file,filename={log},node-name=l0",
        "--blockdev", "driver=blklogwrites,file=f0,log=l0,node-name=d0,log-sector-size=512",
        "--export", f"fuse,id=e0,node-name=d0,mountpoint={export},writable=on",
    ]  # fmt: skip


def _live(data: Path, log: Path) -> list[dict[str, object]]:
    """Keep a book of slots and a record, and note how long the log was after each thing that is promised."""
    data.mkdir(parents=True)
    content = bundle_bytes()
    digest = hashlib.sha256(content).hexdigest()
    ref = BundleRef(name="brightness", version="1.0.0", digest=digest, size_bytes=len(content))
    book = SlotFile(data, ref.name, SystemClock())
    book.bundle_path(ref).write_bytes(content)
    subprocess.run(["sync", str(book.bundle_path(ref))], check=True)
    book.change(lambda b, now: preloaded(b, ref, now))
    seen: list[dict[str, object]] = []
    store = Store.open(data / "lineside.sqlite", clock=SystemClock(), durability="power")
    for number in range(DECISIONS):
        store.append_decision(decision(f"p{number}.jpg", raw=b"%d" % number), input_key=None)
        store.make_power_safe()
        if number == 0:
            seen.append({"at": log.stat().st_size, "what": "decided", "value": True})
        pair = [store.incarnation, store.last_seq()]
        seen.append({"at": log.stat().st_size, "what": "stored", "value": pair})
        time.sleep(0.05)
    store.close()
    return seen


if __name__ == "__main__":
    main()
