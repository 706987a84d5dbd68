"""What this machine is and has, as far as an update must know."""

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
