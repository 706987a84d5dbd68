"""Names and texts of boot entries, and which is started: pure, after the Boot Loader Specification and systemd-boot.

Rules:
- `lineside-b+2-1.conf`: slot b has two starts left and had one; `lineside-b.conf`: it is confirmed.
- An entry whose starts are used up comes last; of the others, the highest version first.
- An entry that is cut short (no kernel, no options) is none.
"""

import re
from dataclasses import dataclass, replace

from edge.osslots.interface import SlotName, Tries
from edge.wire.base import BundleRef

ENTRY_NAME = re.compile(r"lineside-([ab])(?:\+(\d{1,3})(?:-(\d{1,3}))?)?\.conf")
SLOT_WORD, SYSTEM_WORD = "lineside.slot", "lineside.os"


@dataclass(frozen=True)
class Entry:
    """One boot entry."""

    slot: SlotName
    tries: Tries
    version: int
    """Orders the entries; one more than the other for the slot that shall be started."""
    options: str
    """The kernel's command line."""

    @property
    def name(self) -> str:
        """Name of its file."""
        left, done = self.tries.left, self.tries.done
        count = "" if left is None else f"+{left}-{done}" if done else f"+{left}"
        return f"lineside-{self.slot}{count}.conf"

    @property
    def text(self) -> str:
        """Content of its file."""
        return (
            f"title Lineside {self.slot.upper()}\nsort-key lineside\nversion {self.version}\n"
            f"linux /{self.slot}/vmlinuz\ninitrd /{self.slot}/initrd\noptions {self.options}\n"
        )


def parse(name: str, text: str) -> Entry | None:
    """Return the entry of a file; None if it is none of ours, or not whole."""
    found = ENTRY_NAME.fullmatch(name)
    lines = dict(line.partition(" ")[::2] for line in text.splitlines())
    version = lines.get("version", "").strip()
    if found is None or not {"linux", "initrd", "options"} <= lines.keys() or not version.isdigit():
        return None
    slot: SlotName = "a" if found[1] == "a" else "b"
    tries = Tries(None if found[2] is None else int(found[2]), int(found[3] or 0))
    return Entry(slot, tries, int(version), lines["options"].strip())


def chosen(entries: list[Entry]) -> Entry | None:
    """Return the entry that is started; None if there is none."""
    ordered = sorted(entries, key=lambda entry: (entry.tries.exhausted, -entry.version))
    return ordered[0] if ordered else None


def counted(entry: Entry) -> Entry:
    """Return the entry after it was started once more."""
    left = entry.tries.left
    return entry if not left else replace(entry, tries=Tries(left - 1, entry.tries.done + 1))


def confirmed(entry: Entry) -> Entry:
    """Return the entry once its system is confirmed."""
    return replace(entry, tries=Tries(None))


def options_for(options: str, slot: SlotName, root: str, ref: BundleRef) -> str:
    """Return the command line for a system in a slot: that of the one that runs, with another root.

    Args:
        options: of the entry that runs.
        slot: where the other one lies.
        root: what the kernel is to mount, such as `PARTUUID=…`.
        ref: the system.
    """
    kept = [w for w in options.split() if w.partition("=")[0] not in ("root", SLOT_WORD, SYSTEM_WORD)]
    return " ".join([f"root={root}", *kept, *system_words(slot, ref)])


def system_words(slot: SlotName, ref: BundleRef) -> list[str]:
    """Return the words of the command line that say which system it starts."""
    return [f"{SLOT_WORD}={slot}", f"{SYSTEM_WORD}={ref.name}:{ref.version}:{ref.digest}:{ref.size_bytes}"]


def system_of(options: str) -> tuple[SlotName, BundleRef] | None:
    """Return which slot and system a command line starts; None if it does not say."""
    words = dict(word.partition("=")[::2] for word in options.split())
    slot, said = words.get(SLOT_WORD), words.get(SYSTEM_WORD, "").split(":")
    if slot not in ("a", "b") or len(said) != 4 or not said[3].isdigit():
        return None
    name, version, digest, size = said
    try:
        ref = BundleRef(name=name, version=version, digest=digest, size_bytes=int(size), kind="os")
    except ValueError:
        return None
    return ("a" if slot == "a" else "b"), ref
