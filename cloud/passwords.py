"""Passwords of people: kept as Argon2id hashes, asked for at a bounded pace.

Rules:
- A password is at least 12 characters long and is not the name; nothing is asked of the kinds of its characters
  (NIST SP 800-63B, section 3.1.1.2).
- A hash takes 64 MB while it is made (RFC 9106, the profile for little memory), so only two are made at a time.
- A name that does not exist costs the same time as a wrong password.
- Failed attempts are counted per name and per address; beyond the bound nobody is asked until some time has passed.
  Whoever is signed in stays so meanwhile.
"""

import secrets
import threading
from collections import OrderedDict
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from cloud.clock import Clock
from cloud.errors import InvalidError, TooManyError

SHORTEST, LONGEST = 12, 512
AT_ONCE = 2
WINDOW_S = 300.0
PER_NAME = 10
"""Attempts of one name within the window: a person who mistypes, not a list of passwords."""
PER_ADDRESS = 30
"""A whole shift behind one address may sign in, a list of names and passwords may not."""
REMEMBERED = 10_000
"""Names and addresses that are counted; those that were quiet longest go first."""

EFFORT = RFC_9106_LOW_MEMORY

_hasher = PasswordHasher.from_parameters(EFFORT)
_room = threading.BoundedSemaphore(AT_ONCE)


def check_password(name: str, password: str) -> None:
    """Make sure that a password may be used.

    Raises:
        InvalidError: it is too short, too long, or the name itself.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise InvalidError(f"password: expected {SHORTEST} to {LONGEST} characters, got {len(password)}")
    if password.casefold() == name.casefold():
        raise InvalidError("password: expected something else than the name")


def hash_password(password: str) -> str:
    """Return what is kept of a password."""
    with _room:
        return _hasher.hash(password)


def verify_password(kept: str | None, password: str) -> bool:
    """Return whether this is the password that was kept; None takes as long, and is never right."""
    with _room:
        nobody = _nobody()  # made at the first attempt whatever its name, so that its time tells nothing either
        try:
            _hasher.verify(kept or nobody, password)
        except (VerificationError, InvalidHashError):
            return False
    return kept is not None


class Throttle:
    """Counts failed attempts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[tuple[str, str], list[float]] = OrderedDict()

    def attempt(self, name: str, address: str) -> None:
        """Let an attempt pass, and count it as failed until `succeeded` says otherwise: no crowd slips in between.

        Raises:
            TooManyError: there were too many, and for how long to wait.
        """
        now_s = self._clock.monotonic_s()
        keys = ((("name", name), PER_NAME), (("address", address), PER_ADDRESS))
        with self._lock:
            for key, bound in keys:
                recent = [at_s for at_s in self._failures.get(key, []) if now_s - at_s < WINDOW_S]
                if len(recent) >= bound:
                    wait_s = WINDOW_S - (now_s - recent[-bound])
                    raise TooManyError(f"too many failed attempts; try again in {wait_s:.0f} s", retry_after_s=wait_s)
            for key, bound in keys:
                recent = self._failures.pop(key, [])
                self._failures[key] = [*recent[1 - bound :], now_s]
            while len(self._failures) > REMEMBERED:
                self._failures.popitem(last=False)

    def succeeded(self, name: str, address: str) -> None:
        """Forget the failures of this name, and that this attempt was counted for its address."""
        with self._lock:
            self._failures.pop(("name", name), None)
            if self._failures.get(("address", address)):
                self._failures[("address", address)].pop()


@cache
def _nobody() -> str:
    """Return the hash of a password that nobody knows; made when it is first needed, because it takes a while."""
    return _hasher.hash(secrets.token_urlsafe(32))
