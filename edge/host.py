"""What this machine is and has, as far as an update or a trial must know."""

import resource
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LinuxHost:
    """A Linux machine."""

    profile: str

    def free_memory_bytes(self) -> int:
        """Return the memory that can be taken without swapping (`MemAvailable` of /proc/meminfo, proc(5))."""
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return 0


def own_bytes() -> int:
    """Return the resident memory of this process that is not backed by a file (statm of proc(5)); 0 if it is not told.

    It takes microseconds, where a proportional set size takes milliseconds.
    """
    try:
        resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    except (OSError, ValueError):
        return 0
    return (resident - shared) * resource.getpagesize()
