"""Everything that an external broker is given, made from settings, fleet and certificates as they are now.

Rules:
- The broker's certificate is kept as long as it is good for its names; all else is written anew every time.
- Needs the control plane's password where devices sign in by password.
"""

from pathlib import Path
from typing import Literal

import bcrypt

from cloud.broker_files import CloudAccount, ExternalListener, emqx_files, mosquitto_files
from cloud.config import CloudConfig
from cloud.enrolment import BCRYPT_COST, accounts, mosquitto_hash, revoked_serials
from cloud.errors import ConfigError
from cloud.security import Security
from cloud.store import CloudStore

Kind = Literal["mosquitto", "emqx"]


def external_files(
    kind: Kind, config: CloudConfig, store: CloudStore, security: Security, folder: Path
) -> dict[str, bytes]:
    """Return the files of an external broker by name.

    Args:
        kind: which broker.
        config: the control plane's settings.
        store: its database, for the fleet.
        security: its certificates.
        folder: where the broker will find the files.

    Raises:
        ConfigError: devices sign in by password and the control plane has none, or its certificate cannot be used.
    """
    broker = config.broker
    folder = folder.resolve()
    listener = ExternalListener(
        folder=folder,
        host=broker.listen_host,
        port=broker.port,
        tls=broker.tls,
        certificates=broker.uses_certificates,
        own_certificate=broker.ca_file is not None,
    )
    cloud = _cloud_account(config, security)
    fleet = accounts(store)
    if kind == "mosquitto":
        revoked = security.revocation_list(revoked_serials(store))
        texts = mosquitto_files(listener, cloud, fleet, revoked)
    else:
        texts = emqx_files(listener, cloud, fleet)
    files = {name: text.encode() for name, text in texts.items()}
    if broker.uses_certificates:
        files["ca.pem"] = security.authorities.pem.encode()
    if broker.tls and broker.ca_file is None:
        names = [name for name in (broker.host, broker.public_host, broker.listen_host) if name]
        files["server.pem"] = security.broker_pem(names, folder / "server.pem")
    return files


def _cloud_account(config: CloudConfig, security: Security) -> CloudAccount:
    if config.broker.uses_certificates:
        return CloudAccount(config.broker.username, certificate=security.cloud_file().read_text("ascii"))
    password = config.broker_password()
    if password is None:
        raise ConfigError("broker.password_file is not set", hint="the control plane needs a password of its own")
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_COST)).decode()
    return CloudAccount(config.broker.username, bcrypt=hashed, pbkdf2=mosquitto_hash(password))
