"""Errors of the control plane in families by who can mend them, each with its HTTP status and exit code.

Rules:
- A message says what was expected and what came; `hint` says what to do.
- Routes let them pass: one handler in `cloud.app` turns them into answers, `cloud.commands` into exit codes.
"""


class CloudError(Exception):
    """Base of all errors that the control plane raises on purpose."""

    status = 500
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def for_people(self) -> str:
        """Return the message and, if there is one, what to do."""
        return f"{self}\n  → {self.hint}" if self.hint else str(self)


class ConfigError(CloudError):
    """The configuration or a command's arguments are wrong: the person at the keyboard mends it."""

    exit_code = 2


class InvalidError(CloudError):
    """What was sent is not what it should be: its sender mends it."""

    status = 422
    exit_code = 4


class NotFoundError(CloudError):
    """There is no such thing."""

    status = 404
    exit_code = 4


class ConflictError(CloudError):
    """It contradicts what is already there."""

    status = 409
    exit_code = 4


class RefusedError(CloudError):
    """The sender may not do this: wrong token, key or signature."""

    status = 403
    exit_code = 4


class UnauthorizedError(CloudError):
    """The sender did not say who it is."""

    status = 401
    exit_code = 4


class TooLargeError(CloudError):
    """What was sent is larger than allowed."""

    status = 413
    exit_code = 4


class TooManyError(CloudError):
    """The sender asked too often; later it may ask again."""

    status = 429
    exit_code = 4

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class UnavailableError(CloudError):
    """A part that is needed is not there now; trying again may help."""

    status = 503
    exit_code = 5


class BrokerError(UnavailableError):
    """The broker does not start or cannot be reached: the machine's keeper mends it."""
