"""Errors of `lineside-flash` in families by who can mend them, each with its exit code.

Rules:
- A message says what was expected and what came; `hint` says what to do.
- Drivers wrap whatever a tool or the kernel says into one of these; only `__main__` makes exit codes.
"""

from edge.errors import LinesideError


class FlashError(LinesideError):
    """Base of all errors that flashing raises on purpose."""

    exit_code = 1


class ConfigError(FlashError):
    """A profile, an argument or a file that was given is wrong: the person at the keyboard mends it."""

    exit_code = 2


class RefusedError(FlashError):
    """The target must not be written: the person at the keyboard names another, or frees it."""

    exit_code = 3


class BuildError(FlashError):
    """The operating system's image cannot be made: its packages, wheels or tools are missing or wrong."""

    exit_code = 4


class MediumError(FlashError):
    """The medium does not take or give back what was written: it is full, gone, or faulty."""

    exit_code = 5
