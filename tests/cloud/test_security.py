"""The control plane's certificates: made at the first start, renewed in time, the operator's taken instead."""

import os
import socket
import ssl
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.authority import Authority, first_certificate_der, utc
from cloud.config import BrokerConfig, CloudConfig, ServerConfig, StoreConfig, TlsConfig
from cloud.errors import ConfigError
from cloud.security import Security, server_names
from cloud.store import CloudStore
from tests.clocks import HeldClock

DAY_S = 86_400
NOW = HeldClock(time.time_ns() // 1_000_000)


def _security(folder: Path, clock: HeldClock, **sections: object) -> Security:
    config = CloudConfig(store=StoreConfig(data_dir=folder), **sections)
    return Security(config, clock, CloudStore.open(config.database_url))


def _shown(security: Security) -> x509.Certificate:
    return x509.load_der_x509_certificate(first_certificate_der(security.certificate_file.read_text()))


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bytes:
    """Return the certificate that a client saw (DER); raises what the client raises."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as line:
            return line.getpeercert(binary_form=True) or b""
    finally:
        ours.close()
        thread.join()


def test_first_start_makes_an_authority_that_later_starts_keep(tmp_path: Path) -> None:
    first, again = _security(tmp_path, NOW), _security(tmp_path, NOW)
    assert first.authority.pem == again.authority.pem
    assert _shown(first) == _shown(again)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()}
    assert (modes["ca.key"], modes["server.pem"]) == (0o600, 0o600)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "lineside.plant.example", "10.0.0.7", "::1"])
def test_server_is_believed_under_its_names_by_whoever_has_the_authority(tmp_path: Path, name: str) -> None:
    url = "https://lineside.plant.example:8440"
    security = _security(tmp_path, NOW, server=ServerConfig(public_url=url), tls=TlsConfig(names=("10.0.0.7",)))
    strict = ssl.create_default_context(cadata=security.trust_pem)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    assert _handshake(security.server_context(), strict, name)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        _handshake(security.server_context(), strict, "192.0.2.99")


def test_server_is_believed_by_nobody_who_has_another_authority(tmp_path: Path) -> None:
    one, other = _security(tmp_path / "1", NOW), _security(tmp_path / "2", NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(one.server_context(), ssl.create_default_context(cadata=other.trust_pem), "127.0.0.1")


def test_device_cannot_pass_for_the_server(tmp_path: Path) -> None:
    security = _security(tmp_path, NOW)
    thief = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    thief.load_cert_chain(security.cloud_file())  # of the authority, for a client, as devices' are
    client = ssl.create_default_context(cadata=security.trust_pem)
    client.check_hostname = False
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        _handshake(thief, client, "127.0.0.1")


def test_server_certificate_is_renewed_in_time_and_shown_to_the_next_caller(tmp_path: Path) -> None:
    clock = HeldClock(time.time_ns() // 1_000_000 - 61 * DAY_S * 1000)
    security = _security(tmp_path, clock)
    context, client = security.server_context(), ssl.create_default_context(cadata=security.trust_pem)
    before = _handshake(context, client, "127.0.0.1")
    clock.forward(59 * DAY_S)
    assert not security.renew()
    assert _handshake(context, client, "127.0.0.1") == before
    clock.forward(2 * DAY_S)
    assert security.renew()
    after = _handshake(context, client, "127.0.0.1")
    assert after != before
    ends = x509.load_der_x509_certificate(after).not_valid_after_utc
    assert ends - utc(clock.now_ms()) == timedelta(days=90)
    assert not security.renew()


def test_name_that_was_added_is_in_the_certificate_after_the_next_start(tmp_path: Path) -> None:
    first = _shown(_security(tmp_path, NOW))
    security = _security(tmp_path, NOW, tls=TlsConfig(names=("lineside.local",)))
    assert _shown(security) != first
    assert _handshake(
        security.server_context(), ssl.create_default_context(cadata=security.trust_pem), "lineside.local"
    )


def test_operators_own_certificate_is_shown_and_taken_anew_when_its_files_change(tmp_path: Path) -> None:
    plant = Authority.open(tmp_path / "plant", utc(NOW.now_ms()))
    file = tmp_path / "own.pem"
    file.write_bytes(plant.make_server(["127.0.0.1"], utc(NOW.now_ms())))
    own = TlsConfig(certificate_file=file, key_file=file, ca_file=tmp_path / "plant" / "ca.pem")
    security = _security(tmp_path / "data", NOW, tls=own)
    assert security.trust_pem == plant.pem
    client = ssl.create_default_context(cadata=plant.pem)
    before = _handshake(security.server_context(), client, "127.0.0.1")
    assert not security.renew()
    file.write_bytes(plant.make_server(["127.0.0.1"], utc(NOW.now_ms())))
    os.utime(file, (1, 1))
    assert security.renew()
    assert _handshake(security.server_context(), client, "127.0.0.1") != before
    assert _handshake(security.server_context(), security.broker_context(), "any")  # the very one, whatever its name
    systems = _security(tmp_path / "other", NOW, tls=TlsConfig(certificate_file=file, key_file=file))
    assert (systems.trust_pem, systems.fingerprint()) == (None, None)


@pytest.mark.parametrize("what", ["certificate", "key", "pair", "ca"])
def test_operators_files_that_cannot_be_used_are_named_at_the_start(tmp_path: Path, what: str) -> None:
    plant = Authority.open(tmp_path / "plant", utc(NOW.now_ms()))
    one, other, broken = tmp_path / "one.pem", tmp_path / "other.pem", tmp_path / "broken.pem"
    one.write_bytes(plant.make_server(["127.0.0.1"], utc(NOW.now_ms())))
    other.write_bytes(plant.make_server(["127.0.0.1"], utc(NOW.now_ms())))
    broken.write_text("no PEM")
    certificate, key = {"certificate": (broken, one), "key": (one, broken), "pair": (one, other), "ca": (one, one)}[
        what
    ]
    own = TlsConfig(certificate_file=certificate, key_file=key, ca_file=broken if what == "ca" else None)
    with pytest.raises(ConfigError, match=r"tls\.c"):
        _ = _security(tmp_path / "data", NOW, tls=own).fingerprint()


@pytest.mark.parametrize("lost", ["ca.key", "garbled", "foreign"])
def test_authority_that_lost_its_key_is_not_replaced_in_silence(tmp_path: Path, lost: str) -> None:
    _security(tmp_path, NOW)
    key = tmp_path / "tls" / "ca.key"
    if lost == "ca.key":
        key.unlink()
    elif lost == "garbled":
        key.write_text("no key")
    else:
        Authority.open(tmp_path / "foreign", utc(NOW.now_ms()))
        key.write_bytes((tmp_path / "foreign" / "ca.key").read_bytes())
    with pytest.raises(ConfigError, match="ca") as caught:
        _security(tmp_path, NOW)
    assert "backup" in caught.value.hint


def test_list_of_revoked_certificates_names_them_and_lasts_as_long_as_the_authority(tmp_path: Path) -> None:
    security = _security(tmp_path, NOW)
    revoked = x509.load_pem_x509_crl(security.revocation_list(["a1", "ff"]).encode())
    authority = x509.load_pem_x509_certificate(security.authority.pem.encode())
    assert {entry.serial_number for entry in revoked} == {0xA1, 0xFF}
    assert revoked.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    assert revoked.next_update_utc == authority.not_valid_after_utc
    assert authority.public_bytes(Encoding.PEM).decode() == security.authority.pem


def test_address_that_stands_for_all_becomes_one_of_this_machine() -> None:
    names = server_names(CloudConfig(server=ServerConfig(host="0.0.0.0"), broker=BrokerConfig(host="::")))
    assert not {"0.0.0.0", "::"} & set(names)
    assert {"127.0.0.1", "localhost", socket.gethostname()} <= set(names)


@pytest.mark.parametrize(
    ("host", "tls", "speaks"),
    [("127.0.0.1", "auto", False), ("127.0.0.1", True, True), ("10.0.0.7", "auto", True), ("10.0.0.7", False, False)],
)
def test_console_speaks_tls_wherever_others_reach_it_unless_told_and_says_so(
    host: str, tls: bool, speaks: bool
) -> None:
    config = CloudConfig(server=ServerConfig(host=host, tls=tls))
    assert config.console_tls is speaks
    assert bool(config.plain_text()) == (host == "10.0.0.7" and not speaks)


def test_broker_speaks_tls_unless_told_and_says_so() -> None:
    assert CloudConfig().broker.tls
    assert CloudConfig(broker=BrokerConfig(host="10.0.0.7")).plain_text() == []
    told = CloudConfig(broker=BrokerConfig(host="10.0.0.7", tls=False))
    assert "broker" in told.plain_text()[0]
    assert not told.broker.uses_certificates
