"""Tells somebody: by mail, or by a signed POST.

Rules:
- A message that was not taken raises; whoever calls tries again.
- A webhook is signed with the time, so that a copy of it is no use later, and numbered, so that it can be told twice.
"""

import hashlib
import hmac
import json
import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx

from cloud.alerts.rules import Channel, EmailChannel
from cloud.errors import ConfigError

SIGNATURE = "Lineside-Signature"
DELIVERY = "Lineside-Delivery"
FAILURES = (OSError, smtplib.SMTPException, httpx.HTTPError, ConfigError)
"""What telling somebody may fail with."""


def tell(channel: Channel, document: Mapping[str, Any], *, number: int, now_s: int) -> None:
    """Tell one channel.

    Args:
        channel: whom.
        document: the alert as JSON takes it, with `what` (fired, resolved) and `words`.
        number: of the delivery: the same for every attempt.
        now_s: Unix seconds.

    Raises:
        OSError, smtplib.SMTPException, httpx.HTTPError, ConfigError: it was not taken.
    """
    if isinstance(channel, EmailChannel):
        _mail(channel, document, number)
    else:
        post(channel.url, channel.secret_file, document, number=str(number), now_s=now_s, timeout_s=channel.timeout_s)


def post(url: str, secret_file: Path, document: Mapping[str, Any], *, number: str, now_s: int, timeout_s: float) -> Any:
    """POST a signed document; return the answer's JSON, or None where there is none.

    Raises:
        httpx.HTTPError: it was not taken.
        ConfigError: the secret cannot be read.
    """
    body = json.dumps(document, sort_keys=True).encode()
    headers = {
        "Content-Type": "application/json",
        SIGNATURE: signature(_secret(secret_file), body, now_s),
        DELIVERY: number,
    }
    answer = httpx.post(url, content=body, headers=headers, timeout=timeout_s, trust_env=False)
    answer.raise_for_status()
    try:
        return answer.json()
    except ValueError:
        return None


def signature(secret: bytes, body: bytes, now_s: int) -> str:
    """Return the header that shows who sent a body and when."""
    digest = hmac.new(secret, b"%d." % now_s + body, hashlib.sha256).hexdigest()
    return f"t={now_s},v1={digest}"


def _mail(channel: EmailChannel, document: Mapping[str, Any], number: int) -> None:
    message = EmailMessage()
    over = "" if document["what"] == "fired" else "over: "
    message["Subject"] = f"[Lineside] {over}{document['rule']}: {document['subject']}"[:200].replace("\n", " ")
    message["From"] = channel.sender
    message["To"] = ", ".join(channel.recipients)
    message["Message-ID"] = f"<alert-{number}-{document['began_ms']}@lineside>"
    link = f"\n\n{document['link']}" if document.get("link") else ""
    message.set_content(f"{document['words']}\n\nRule {document['rule']}, severity {document['severity']}.{link}\n")
    with smtplib.SMTP(channel.host, channel.port, timeout=channel.timeout_s) as server:
        if channel.starttls:
            trusted = None if channel.ca_file is None else str(channel.ca_file)
            server.starttls(context=ssl.create_default_context(cafile=trusted))
        if channel.username:
            password = b"" if channel.password_file is None else _secret(channel.password_file)
            server.login(channel.username, password.decode())
        refused = server.send_message(message)
        if refused:
            raise smtplib.SMTPRecipientsRefused(refused)


def _secret(path: Path) -> bytes:
    try:
        return path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
