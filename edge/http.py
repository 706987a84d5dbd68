"""How the device speaks HTTP: one set of limits and one way to say what went wrong.

Rules:
- Every call has a time limit; nothing follows redirects to somewhere else; answers are read up to a limit.
- Who answers by HTTPS is verified by the CA that is given, else by what the system trusts.
"""

import ssl
from pathlib import Path

import urllib3

from edge.tls import context

CONNECT_S = 10.0
READ_S = 30.0
"""Longest silence within an answer."""


def connection_pool(
    *, read_s: float = READ_S, ca: Path | None = None, tls: ssl.SSLContext | None = None
) -> urllib3.PoolManager:
    """Return a pool that tries each call once: the callers know when to try again.

    Args:
        read_s: longest silence within an answer.
        ca: what to verify by (PEM), instead of what the system trusts.
        tls: a context to use instead.

    Raises:
        ConfigError: there is no certificate in `ca`.
    """
    timeout = urllib3.Timeout(connect=CONNECT_S, read=read_s)
    made = context(ca=ca) if tls is None and ca is not None else tls
    return urllib3.PoolManager(num_pools=4, maxsize=2, timeout=timeout, retries=False, ssl_context=made)


def for_people(error: Exception) -> str:
    """Return the innermost reason of a transport error, without object addresses."""
    reason: BaseException = error
    while (inner := getattr(reason, "reason", None) or reason.__cause__) and isinstance(inner, BaseException):
        reason = inner
    inside = reason.args[0] if reason.args else None  # urllib3 keeps what TLS said as an argument
    refused = inside if isinstance(inside, ssl.SSLCertVerificationError) else reason
    if isinstance(refused, ssl.SSLCertVerificationError):
        return f"the certificate is not believed: {refused.verify_message.rstrip('.')}{_hint(refused.verify_code)}"
    text = str(reason).rsplit(": ", 1)[-1] if " at 0x" in str(reason) else str(reason)
    return text or type(reason).__name__


def _hint(code: int) -> str:
    """Return what to look at for a code of X509_verify_cert_error_string(3)."""
    not_yet_valid, has_expired, name, address = 9, 10, 62, 64
    if code in (not_yet_valid, has_expired):
        return "; look at this device's clock"
    if code in (name, address):
        return "; the control plane must know this name or address (tls.names)"
    return "; is it the control plane that the claim is for?"
