"""How the device speaks HTTP: one set of limits and one way to say what went wrong.

Rules:
- Every call has a time limit; nothing follows redirects to somewhere else; answers are read up to a limit.
"""

import urllib3

CONNECT_S = 10.0
READ_S = 30.0
"""Longest silence within an answer."""


def connection_pool(*, read_s: float = READ_S) -> urllib3.PoolManager:
    """Return a pool that tries each call once: the callers know when to try again."""
    timeout = urllib3.Timeout(connect=CONNECT_S, read=read_s)
    return urllib3.PoolManager(num_pools=4, maxsize=2, timeout=timeout, retries=False)


def for_people(error: Exception) -> str:
    """Return the innermost reason of a transport error, without object addresses."""
    reason: BaseException = error
    while (inner := getattr(reason, "reason", None) or reason.__cause__) and isinstance(inner, BaseException):
        reason = inner
    text = str(reason).rsplit(": ", 1)[-1] if " at 0x" in str(reason) else str(reason)
    return text or type(reason).__name__
