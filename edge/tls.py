"""TLS as a device speaks it: every context is made here, and what it takes to believe a control plane or be believed.

Rules:
- A control plane is verified by what was pinned for it, if something was: `cloud.ca`, or the CA whose SHA-256 stood in
  the claim. Else by what the device's system trusts. Never by nothing, but for the one call that fetches the CA.
- Name and time are always verified; the clock of a device that is refused for the time is named in the message.
- Nothing here needs a cryptography library but the standard one.
"""

import base64
import hashlib
import ssl
from pathlib import Path

from edge.errors import ConfigError

HINT = "expected PEM; if enrolment left it there, bring it back, or remove the identity folder and enrol again"


def context(
    *, ca: Path | None = None, pem: str | None = None, certificate: tuple[Path, Path] | None = None
) -> ssl.SSLContext:
    """Return a client's context.

    Args:
        ca: what to verify the other side by (PEM), instead of what the system trusts.
        pem: the same as text.
        certificate: files of the own certificate and its key, if one is shown.

    Raises:
        ConfigError: a file is missing or is not what it should be.
    """
    try:
        made = ssl.create_default_context(cafile=ca, cadata=pem)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"{ca} holds no certificate to verify by: {error}", hint=HINT) from error
    if certificate is not None:
        try:
            made.load_cert_chain(*certificate)
        except OSError as error:
            raise ConfigError(f"{certificate[0]} and its key cannot be used: {error}", hint=HINT) from error
    return made


def context_without_trust() -> ssl.SSLContext:
    """Return a context that believes anybody: for asking for the CA whose digest is known, and nothing else."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the default one would read all that the system trusts first
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def is_the_ca(pem: str, digest: str) -> bool:
    """Return whether a text is one certificate with this SHA-256 (base64url without padding)."""
    try:
        der = ssl.PEM_cert_to_DER_cert(pem)
    except ValueError:
        return False
    got = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
    return pem.count(ssl.PEM_HEADER) == 1 and got == digest
