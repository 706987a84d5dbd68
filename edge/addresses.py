"""Tells from an address who can listen on the way to it.

Rules:
- Plain text is for this machine alone, unless the configuration says otherwise.
- Names are not looked up: what they stand for may change; `localhost` alone is known.
"""

import ipaddress
from urllib.parse import urlsplit


def is_private(host: str) -> bool:
    """Return whether nobody but this machine can listen on the way to a host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_plain(url: str) -> bool:
    """Return whether an address speaks without TLS to another machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_private(parts.hostname or "")
