"""Takes in what the card was written with (`install`), and wipes the claim once enrolment has used it up (`wipe`).

Rules:
- Runs at every start and may lose its power at any moment: each file is whole or absent, the mark that says "done" is
  written last, and what is done is not done again.
- A file that is not the one that the seed names is left out and told; the others are taken, so that the device decides
  with what is sound.
- The claim lies on the boot partition, and in the configuration only until the device is enrolled.
- The standard library alone: nothing here can be broken by a wheel.
"""

import hashlib
import json
import os
import pwd
import sys
from collections.abc import Callable
from pathlib import Path

SEED_FILE = "seed.json"
CLAIM_FILE = "claim"
CONFIG_FILE = "box.toml"
DONE_MARK = ".seed-done"
WIPED_MARK = ".claim-wiped"
IDENTITY = "data/identity/identity.json"
SSH_FOLDER = "os/ssh"
OWNER = "lineside"
CLAIM_PLACE = "[cloud]\n"
MAX_FILE_BYTES = 1 << 30


def install(seed_dir: Path, home: Path, tell: Callable[[str], None]) -> int:
    """Put the seed's files where the daemon looks for them; return 0, or 1 if some were not sound.

    Args:
        seed_dir: folder of the boot partition with `seed.json`, the files that it names, and the claim.
        home: the daemon's folder on the data partition.
        tell: is told what a person at the screen should know.
    """
    seed = json.loads((seed_dir / SEED_FILE).read_text())
    done = home / DONE_MARK
    if done.is_file() and done.read_text() == seed["id"]:
        return 0
    home.mkdir(parents=True, exist_ok=True)
    bad = [name for name, file in sorted(seed["files"].items()) if not _take(seed_dir / name, home, file)]
    for name in bad:
        tell(f"{name} on the boot partition is damaged; it is left out: write the card again")
    _write_config(seed_dir, home)
    if not bad:
        write(done, seed["id"].encode())
        tell(f"{seed['device']}: took in {len(seed['files'])} files")
    return 1 if bad else 0


def wipe(seed_dir: Path, home: Path, tell: Callable[[str], None]) -> int:
    """Take the claim out of configuration and boot partition, if the device is enrolled; return 0."""
    if not (home / IDENTITY).is_file():
        return 0
    claim = seed_dir / CLAIM_FILE
    if claim.is_file():
        # Overwritten where it lies first: removing alone would leave it readable on the medium.
        with claim.open("r+b") as file:
            file.write(b"0" * claim.stat().st_size)
            file.flush()
            os.fsync(file.fileno())
        claim.unlink()
        _sync_folder(seed_dir)
    _write_config(seed_dir, home)
    write(home / WIPED_MARK, b"")
    tell("enrolled; the claim is wiped")
    return 0


def configuration(template: str, claim: str | None) -> str:
    """Return the daemon's configuration: the one on the boot partition, with the claim if there still is one."""
    if claim is None:
        return template
    return template.replace(CLAIM_PLACE, f'{CLAIM_PLACE}claim = "{claim}"\n', 1)


def write(path: Path, content: bytes, *, own: bool = True) -> None:
    """Put a file in place, whole and lasting; as the daemon's own, or as root's, as sshd asks of its keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if own:
        _own(temporary)
        _own(path.parent)
    temporary.replace(path)
    _sync_folder(path.parent)


def _take(source: Path, home: Path, file: dict[str, str]) -> bool:
    try:
        if source.stat().st_size > MAX_FILE_BYTES:
            return False
        content = source.read_bytes()
    except OSError:
        return False
    if hashlib.sha256(content).hexdigest() != file["sha256"]:
        return False
    target = home / file["to"]
    if not (target.is_file() and target.read_bytes() == content):
        write(target, content, own=not file["to"].startswith(".."))
    return True


def _write_config(seed_dir: Path, home: Path) -> None:
    claim_file = seed_dir / CLAIM_FILE
    claim = claim_file.read_text().strip() if claim_file.is_file() and not (home / IDENTITY).is_file() else None
    write(home / CONFIG_FILE, configuration((seed_dir / CONFIG_FILE).read_text(), claim).encode())


def _own(path: Path) -> None:
    """Give a file to the daemon, where there is its user (on a device) and we may (as root)."""
    try:
        user = pwd.getpwnam(OWNER)
        os.chown(path, user.pw_uid, user.pw_gid)
    except (KeyError, PermissionError):
        return


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(arguments: list[str]) -> int:
    """Run `install` or `wipe` on two folders."""
    work = {"install": install, "wipe": wipe}[arguments[0]]

    def tell(words: str) -> None:
        sys.stdout.write(f"lineside: {words}\n")
        sys.stdout.flush()

    return work(Path(arguments[1]), Path(arguments[2]), tell)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
