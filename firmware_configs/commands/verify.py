"""`lineside-flash verify`: compares a medium with the receipt of its writing."""

from pathlib import Path

from firmware_configs.commands.shared import note, progress_shown, say
from firmware_configs.errors import MediumError
from firmware_configs.receipt import load_receipt
from firmware_configs.writer import Medium, compare

ROOT = "root-a"


def run(receipt: Path, to: Path) -> int:
    """Compare, and say what is the same; return 0, or 1 where only the root is, as on a device that has started.

    Raises:
        ConfigError: the receipt is none.
        RefusedError: the medium is in use or cannot be opened.
        MediumError: the root has other bytes, or cannot be read.
    """
    noted = load_receipt(receipt)
    medium = Medium(to)
    try:
        changed = []
        for region in noted.written():
            try:
                compare(medium, [region], progress_shown())
            except MediumError as error:
                if region.name == ROOT:
                    raise
                note(str(error))
                changed.append(region.name)
    finally:
        medium.close()
    if changed:
        say(f"{noted.device}: the system is as written; changed since: {', '.join(changed)} (a first start does that)")
        return 1
    say(f"{noted.device}: everything is as written")
    return 0
