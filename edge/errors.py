"""Errors in families by who can mend them.

Rules:
- A message says what was expected and what came; `hint` says what to do; `retry` says whether trying again may help.
- Drivers wrap whatever their library throws into one of these; only command lines turn them into exit codes.
"""


class LinesideError(Exception):
    """Base of all errors that Lineside raises on purpose."""

    retry = False

    def __init__(self, message: str, *, hint: str = "", retry: bool | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if retry is not None:
            self.retry = retry

    def for_people(self) -> str:
        """Return the message and, if there is one, what to do."""
        return f"{self}\n  → {self.hint}" if self.hint else str(self)


class ConfigError(LinesideError):
    """The configuration or a command's arguments are wrong: the person at the keyboard mends it."""


class SourceError(LinesideError):
    """A camera, folder or microphone gives nothing usable: the person at the machine mends it."""

    retry = True


class ModelError(LinesideError):
    """A bundle or its network is wrong or failed: the model's maker mends it."""


class DeadlineError(ModelError):
    """An inference took longer than it may; the part it was for is deferred."""


class ActuatorError(LinesideError):
    """The plant did not take the action: the person at the line mends it."""

    retry = True


class LinkError(LinesideError):
    """The broker or control plane cannot be reached or refuses: the network's or control plane's keeper mends it."""

    retry = True


class StoreError(LinesideError):
    """The disk or database does not take or give a row: the person at the machine mends it."""

    retry = True


class UpdateError(LinesideError):
    """A bundle was not taken: wrong digest, signature, version, hardware or golden outputs."""
