"""What every kind of slots for operating systems can do.

Rules:
- After `close_off` the other slot cannot be started, whatever is written into it; `arm` alone makes it startable again.
- What `arm` has returned from survives a power cut; before that, the system that runs is the one that starts.
- Starting counts down by itself: a system that is not confirmed in so many starts is left for the one before it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol

from edge.wire.base import BundleRef

SlotName = Literal["a", "b"]
OTHER: dict[SlotName, SlotName] = {"a": "b", "b": "a"}


@dataclass(frozen=True)
class Running:
    """The system that runs."""

    slot: SlotName
    ref: BundleRef


@dataclass(frozen=True)
class Tries:
    """How often a slot was started and may be started until it is confirmed; `left` is None once it is."""

    left: int | None
    done: int = 0

    @property
    def exhausted(self) -> bool:
        """Whether it has had all its starts, in vain."""
        return self.left == 0


class OsSlots(Protocol):
    """Two slots. From one thread at a time."""

    @property
    def running(self) -> Running:
        """The system that runs, for as long as this process does."""
        ...

    @property
    def capacity_bytes(self) -> int:
        """Size of the other slot."""
        ...

    def tries(self, slot: SlotName) -> Tries | None:
        """Return how a slot stands with the boot chain; None for one that cannot be started."""
        ...

    def startable(self, slot: SlotName) -> BundleRef | None:
        """Return the system that a slot would start, untouched since it was put there; None if it cannot be started."""
        ...

    def close_off(self, slot: SlotName) -> None:
        """Make sure that a slot is not started any more; the slot that runs only in order to leave it.

        Raises:
            StoreError: the disk does not take it.
        """
        ...

    def open_other(self, *, writable: bool) -> AbstractContextManager[BinaryIO]:
        """Open the other slot at its beginning, without a buffer.

        Raises:
            StoreError: it cannot be opened, or could still be started and is to be written.
        """
        ...

    def put_boot_file(self, name: str, read: Callable[[int], bytes]) -> None:
        """Put kernel or initrd of the other slot where the boot chain finds it, for good; no slot is startable by it.

        Raises:
            StoreError: the disk does not take it.
        """
        ...

    def boot_file(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open kernel or initrd of the other slot to compare it.

        Raises:
            StoreError: it cannot be read.
        """
        ...

    def arm(self, ref: BundleRef, tries: int) -> None:
        """Let the other slot be started next, so many times until it is confirmed.

        Raises:
            StoreError: the disk does not take it.
        """
        ...

    def confirm(self) -> None:
        """Make the slot that runs the one that is started from now on.

        Raises:
            StoreError: the disk does not take it.
        """
        ...

    def watch_trial(self, deadline_s: float | None) -> None:
        """Have the other slot's first starts watched from outside of the daemon: without `say_well` it is restarted.

        Args:
            deadline_s: after the start; None for no watching any more.

        Raises:
            StoreError: the disk does not take it.
        """
        ...

    def why_left(self) -> str:
        """Return what the watch has noted of a start that was not well, in words; empty if there was none."""
        ...

    def say_well(self) -> None:
        """Say to the system that this start is well."""
        ...

    def restart(self) -> None:
        """Have the machine restarted, in order.

        Raises:
            StoreError: nobody can be asked.
        """
        ...
