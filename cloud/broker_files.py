"""The text of what brokers read: accounts and rights of every device, complete configurations of Mosquitto and EMQX.

Rules:
- The same rights everywhere: a device may publish its own `reported`, `presence` and `up`, and subscribe to its own
  `desired` and `ack`, each by its full name; nothing else, no wildcards. The control plane may do all below the prefix.
- Rights are written out for each device that is in the fleet, so that whoever was put out has none at the next reading,
  whatever certificate or open connection it still has.
- nats-server needs no further permissions than these (checked with 2.15: none on `$MQTT.`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloud.authority import device_identity, first_certificate_der
from cloud.enrolment import Account
from edge.wire.topics import FROM_DEVICE, PREFIX, TO_DEVICE, Channel, topic

WRITTEN = "Written by lineside-cloud; changes are lost."
MAX_MESSAGE_BYTES = 8 * 2**20
"""Sixteen times what a device sends at most."""
MAX_QUEUED = 100_000
"""Room for every device's desired state while the control plane is away from the broker for a moment."""


@dataclass(frozen=True)
class CloudAccount:
    """How the control plane itself signs in."""

    username: str
    """By which Mosquitto and EMQX know it."""
    bcrypt: str = ""
    pbkdf2: str = ""
    certificate: str = ""
    """PEM; then there is no password."""


@dataclass(frozen=True)
class ExternalListener:
    """What the configuration of an external broker's listener is made from."""

    folder: Path
    """Where the broker finds its files."""
    host: str
    port: int
    tls: bool
    certificates: bool
    """Whether devices sign in by certificate."""
    own_certificate: bool
    """Whether the broker shows a certificate of its own, rather than the one that is written here."""


def users_file(cloud: tuple[str, str], devices: Sequence[Account]) -> str:
    """Return nats-server's accounts.

    Args:
        cloud: the control plane's user and bcrypt hash; no hash if it signs in by certificate.
        devices: those without a credential of the same kind as the control plane's are left out.
    """
    by_certificate = not cloud[1]
    lines = ["authorization {", "  users: [", f"    {{{_nats_user(*cloud)}}}"]
    for account in devices:
        name = device_identity(account.device, account.serial) if by_certificate else account.device
        if by_certificate != bool(account.serial):
            continue
        publish = ", ".join(f'"{_subject(account.device, channel)}"' for channel in FROM_DEVICE)
        subscribe = ", ".join(f'"{_subject(account.device, channel)}"' for channel in TO_DEVICE)
        allowed = f"publish: {{allow: [{publish}]}}, subscribe: {{allow: [{subscribe}]}}"
        secret = "" if by_certificate else account.bcrypt
        lines.append(f"    {{{_nats_user(name, secret)}, permissions: {{{allowed}}}}}")
    return "\n".join([*lines, "  ]", "}", ""])


def mosquitto_files(
    listener: ExternalListener, cloud: CloudAccount, devices: Sequence[Account], revoked: str
) -> dict[str, str]:
    """Return Mosquitto's files by name; `mosquitto.conf` names the others.

    Args:
        listener: where it listens, and how devices sign in.
        cloud: the control plane's account.
        devices: the fleet.
        revoked: the list of certificates that were put out (PEM).
    """
    acl = [f"# {WRITTEN}", f"user {cloud.username}", f"topic readwrite {PREFIX}/#"]
    for account in _with_credential(devices, certificates=listener.certificates):
        acl += ["", f"user {account.device}"]
        acl += [f"topic write {topic(account.device, channel)}" for channel in FROM_DEVICE]
        acl += [f"topic read {topic(account.device, channel)}" for channel in TO_DEVICE]
    files = {"mosquitto.conf": _mosquitto_conf(listener), "acl_file": "\n".join([*acl, ""])}
    if listener.certificates:
        files["crl.pem"] = revoked
    else:
        accounts = [(cloud.username, cloud.pbkdf2)]
        accounts += [(account.device, account.pbkdf2) for account in _with_credential(devices, certificates=False)]
        files["password_file"] = "".join(f"{name}:{password_hash}\n" for name, password_hash in accounts)
    return files


def emqx_files(listener: ExternalListener, cloud: CloudAccount, devices: Sequence[Account]) -> dict[str, str]:
    """Return EMQX 5's files by name: `lineside.hocon` to include from `base.hocon`, and what it names.

    With certificates the user's name is the MD5 of the certificate, as EMQX makes it: a device's rights hang on the one
    that it has now. (The certificate was verified before; the digest only names it.)
    """
    known = {cloud.username: _md5(cloud.certificate) if listener.certificates else cloud.username}
    fleet = _with_credential(devices, certificates=listener.certificates)
    known |= {
        account.device: _md5(account.certificate) if listener.certificates else account.device for account in fleet
    }
    rules = [f"%% {WRITTEN}", f'{{allow, {{username, "{known[cloud.username]}"}}, all, ["{PREFIX}/#"]}}.']
    for account in fleet:
        rules += [f"%% {account.device}", *_emqx_rules(known[account.device], account.device)]
    files = {"lineside.hocon": _emqx_conf(listener), "acl.conf": "\n".join([*rules, "{deny, all}.", ""])}
    if not listener.certificates:
        rows = [_emqx_user(cloud.username, cloud.bcrypt)]
        rows += [_emqx_user(account.device, account.bcrypt) for account in fleet]
        files["users.csv"] = "\n".join(["user_id,password_hash,salt,is_superuser", *rows, ""])
    return files


def _with_credential(devices: Sequence[Account], *, certificates: bool) -> list[Account]:
    return [account for account in devices if bool(account.serial if certificates else account.pbkdf2)]


def _subject(device: str, channel: Channel) -> str:
    """Return the NATS subject of an MQTT topic of the contract; its names hold neither dots nor blanks."""
    return topic(device, channel).replace("/", ".")


def _nats_user(name: str, password_hash: str) -> str:
    password = f', password: "{password_hash}"' if password_hash else ""
    return f'user: "{name}"{password}, allowed_connection_types: ["MQTT"]'


def _mosquitto_conf(listener: ExternalListener) -> str:
    lines = [
        f"# {WRITTEN}",
        f"listener {listener.port} {listener.host}",
        "allow_anonymous false",
        f"acl_file {listener.folder / 'acl_file'}",
        f"message_size_limit {MAX_MESSAGE_BYTES}",
        f"max_queued_messages {MAX_QUEUED}",
    ]
    if listener.tls and not listener.own_certificate:
        lines += [f"{key} {listener.folder / 'server.pem'}" for key in ("certfile", "keyfile")]
    elif listener.tls:
        lines += ["# certfile and keyfile: your own, of the authority in broker.ca_file"]
    if listener.certificates:
        lines += [
            f"cafile {listener.folder / 'ca.pem'}",
            f"crlfile {listener.folder / 'crl.pem'}",
            "require_certificate true",
            "use_identity_as_username true",
        ]
    else:
        lines += [f"password_file {listener.folder / 'password_file'}"]
    return "\n".join([*lines, ""])


def _emqx_conf(listener: ExternalListener) -> str:
    folder, bind = listener.folder, f"{listener.host}:{listener.port}"
    off = [("tcp", "default"), ("ssl", "default"), ("ws", "default"), ("wss", "default")]
    lines = [f"# {WRITTEN}", *(f"listeners.{kind}.{name}.enable = false" for kind, name in off)]
    kind = "ssl" if listener.tls else "tcp"
    lines += [f"listeners.{kind}.lineside {{", f'  bind = "{bind}"', *_emqx_tls(listener), "}"]
    lines += [f"mqtt.max_packet_size = {MAX_MESSAGE_BYTES // 2**20}MB"]
    if listener.certificates:
        lines += ["mqtt.peer_cert_as_username = md5"]
    else:
        lines += [
            "authentication = [{",
            "  mechanism = password_based",
            "  backend = built_in_database",
            "  user_id_type = username",
            "  password_hash_algorithm { name = bcrypt }",
            f'  bootstrap_file = "{folder / "users.csv"}"',
            "  bootstrap_type = hash",
            "}]",
        ]
    lines += [
        "authorization {",
        "  no_match = deny",
        "  deny_action = disconnect",
        "  cache.enable = false",
        f'  sources = [{{type = file, enable = true, path = "{folder / "acl.conf"}"}}]',
        "}",
    ]
    return "\n".join([*lines, ""])


def _emqx_tls(listener: ExternalListener) -> list[str]:
    if not listener.tls:
        return []
    lines = ["  ssl_options {", "    versions = [tlsv1.3, tlsv1.2]"]
    if listener.own_certificate:
        lines += ["    # certfile and keyfile: your own, of the authority in broker.ca_file"]
    else:
        lines += [f'    {key} = "{listener.folder / "server.pem"}"' for key in ("certfile", "keyfile")]
    if listener.certificates:
        lines += [
            f'    cacertfile = "{listener.folder / "ca.pem"}"',
            "    verify = verify_peer",
            "    fail_if_no_peer_cert = true",
        ]
    return [*lines, "  }"]


def _emqx_rules(user: str, device: str) -> list[str]:
    kinds: list[tuple[str, Sequence[Channel]]] = [("publish", FROM_DEVICE), ("subscribe", TO_DEVICE)]
    return [
        f'{{allow, {{username, "{user}"}}, {action}, [{", ".join(_exactly(device, c) for c in channels)}]}}.'
        for action, channels in kinds
    ]


def _exactly(device: str, channel: Channel) -> str:
    return f'{{eq, "{topic(device, channel)}"}}'


def _emqx_user(name: str, bcrypt_hash: str) -> str:
    """Return a row of EMQX's user file; its bcrypt takes the first 29 characters as salt, and knows `2a` for `2b`."""
    kept = bcrypt_hash.replace("$2b$", "$2a$", 1)
    return f"{name},{kept},{kept[:29]},false"


def _md5(certificate: str) -> str:
    return hashlib.md5(first_certificate_der(certificate), usedforsecurity=False).hexdigest()
