"""Sets a clock that is wrong by what the control plane says, on a network without a time server.

Rules:
- Who tells the time is verified as the daemon verifies the control plane: by `cloud.ca`, what enrolment left, the
  claim's digest, else by what the system trusts. The one thing that a wrong clock cannot tell, whether the certificate
  is of its time, is looked at afterwards, by the time that was told.
- Never to before the moment that this image was made.
- A clock that a time server has set is left alone, and so is one that is right to a few seconds.
- The standard library alone.
"""

import base64
import email.utils
import fcntl
import hashlib
import http.client
import os
import ssl
import struct
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

CONFIG_FILE = "box.toml"
PINNED = "data/identity/ca.pem"
"""What enrolment leaves to verify the control plane by."""
NOT_BEFORE = Path("/usr/lib/clock-epoch")
"""Its own time is when the image was made; systemd never begins before it either."""
BY_TIME_SERVER = Path("/run/systemd/timesync/synchronized")
LAST_KNOWN = Path("/var/lib/systemd/timesync/clock")
"""What the clock begins from at the next start where it has no battery."""
REAL_TIME_CLOCK = Path("/dev/rtc0")
RTC_SET_TIME = 0x4024700A
NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of X509_VERIFY_PARAM_set_flags(3)."""
RIGHT_S = 3.0
"""The answer's time is in whole seconds, and it was on its way."""
TIMEOUT_S = 20.0
MAX_CA_BYTES = 64 * 1024


class UnknownError(Exception):
    """The time is not known yet: later it may be."""


def main(home: Path, tell: Callable[[str], None]) -> int:
    """Set the clock if it is wrong; return 0 if it is right now, 1 if that is not known yet."""
    cloud = tomllib.loads((home / CONFIG_FILE).read_text()).get("cloud")
    if cloud is None or BY_TIME_SERVER.exists():
        return 0
    try:
        told_s = told_time(urlsplit(cloud["url"]), *authority(cloud, home), NOT_BEFORE.stat().st_mtime)
    except (OSError, http.client.HTTPException, UnknownError) as error:
        tell(f"the time is not known yet: {error}")
        return 1
    off_s = time.time() - told_s
    if abs(off_s) > RIGHT_S:
        set_clock(told_s)
        tell(f"the clock was {abs(off_s):.0f} s {'ahead' if off_s > 0 else 'behind'}; set by the control plane's")
    return 0


def authority(cloud: dict[str, Any], home: Path) -> tuple[str | None, str | None]:
    """Return the certificate (PEM) that is known already, and the digest of one that has yet to be fetched."""
    for path in (home / cloud["ca"] if "ca" in cloud else None, home / PINNED):
        if path is not None and path.is_file():
            return path.read_text(), None
    _, _, digest = str(cloud.get("claim", "")).strip().partition(".")
    return None, digest or None


def told_time(address: SplitResult, pem: str | None, digest: str | None, not_before_s: float) -> float:
    """Return what the control plane says the time is, in seconds since 1970.

    Args:
        address: of the control plane.
        pem: what to verify it by; None for `digest`.
        digest: of the certificate to fetch and verify it by; None for what the system trusts.
        not_before_s: no earlier time is believed.

    Raises:
        UnknownError: it cannot be believed.
        OSError: it cannot be reached, or is another one.
        http.client.HTTPException: whoever answers does not speak HTTP.
    """
    if address.scheme != "https":
        raise UnknownError("the control plane is not asked by HTTPS, so anybody could say the time")
    if pem is None and digest is not None:
        pem = _fetch(address, digest)
    context = ssl.create_default_context(cadata=pem)
    context.verify_flags |= NO_CHECK_TIME
    said, _, certificate = _ask(address, context)
    begins_s, ends_s = (ssl.cert_time_to_seconds(certificate[word]) for word in ("notBefore", "notAfter"))
    if not max(begins_s, not_before_s) <= said <= ends_s:
        raise UnknownError("the control plane says a time at which its certificate, or this system, is not valid")
    return said


def set_clock(now_s: float) -> None:
    """Set the system's clock, the one with the battery if there is one, and what the next start begins from."""
    time.clock_settime(time.CLOCK_REALTIME, now_s)
    try:
        if LAST_KNOWN.exists():
            os.utime(LAST_KNOWN, (now_s, now_s))
        utc = time.gmtime(now_s)
        fields = (utc.tm_sec, utc.tm_min, utc.tm_hour, utc.tm_mday, utc.tm_mon - 1, utc.tm_year - 1900, 0, 0, 0)
        with REAL_TIME_CLOCK.open("rb") as clock:
            fcntl.ioctl(clock, RTC_SET_TIME, struct.pack("9i", *fields))
    except OSError:
        return  # there is none, or it cannot be set: this start is right all the same


def _fetch(address: SplitResult, digest: str) -> str:
    """Return the certificate with this SHA-256. Whoever is asked cannot cheat: another one has another digest."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, content, _ = _ask(address, context)
    try:
        pem = content.decode("ascii")
        der = ssl.PEM_cert_to_DER_cert(pem)
    except ValueError as error:
        raise UnknownError("whoever answers has no certificate of its own") from error
    if base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode() != digest:
        raise UnknownError("whoever answers is not the control plane that the claim is for")
    return pem


def _ask(address: SplitResult, context: ssl.SSLContext) -> tuple[float, bytes, dict[str, Any]]:
    """Return the time that an answer carries, the answer, and the certificate of who gave it."""
    way = http.client.HTTPSConnection(address.hostname or "", address.port, timeout=TIMEOUT_S, context=context)
    try:
        way.request("GET", f"{address.path.rstrip('/')}/v1/ca")
        certificate = way.sock.getpeercert() if isinstance(way.sock, ssl.SSLSocket) else None
        answer = way.getresponse()
        content = answer.read(MAX_CA_BYTES)
    finally:
        way.close()
    try:
        said = email.utils.parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError as error:
        raise UnknownError("whoever answers does not say the time") from error
    return said.timestamp(), content, certificate or {}


def _tell(words: str) -> None:
    sys.stdout.write(f"lineside: {words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), _tell))
