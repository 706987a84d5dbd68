"""A device and a control plane meet over real TLS: whom they believe, and what a claim is worth to whom."""

import asyncio
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from cloud.config import BrokerConfig, TlsConfig
from cloud.enrolment import accounts
from cloud.roles import FOR_DEVICES, RULES
from edge.errors import ConfigError, LinkError
from edge.fetch import fetch_bundle
from edge.identity import broker_context, ca_file
from edge.wire.base import BundleRef
from edge.wire.http import BrokerAddress, EnrolAnswer
from tests.bundles import bundle_bytes
from tests.clocks import HeldClock
from tests.cloud.publishing import publish
from tests.cloud.world import World
from tests.contract.sites import ask, served
from tests.webserver import WebServer


@contextmanager
def control_plane(folder: Path, *, days_ago: float = 0, host: str = "127.0.0.1", **options: Any) -> Iterator["Plant"]:
    """A control plane that devices reach by HTTPS."""
    clock = HeldClock(time.time_ns() // 1_000_000 - round(days_ago * 86_400_000))
    world = World(folder, clock=clock, **options)
    try:
        with served(world, host) as url:
            yield Plant(world, url)
    finally:
        world.close()


class Plant:
    """A control plane and its address."""

    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self.url = url

    def claim(self) -> str:
        """Return a new claim."""
        return self.world.services.enrolment.create_claim().token


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """One control plane for all tests that leave it as it is."""
    with control_plane(tmp_path_factory.mktemp("plant"), with_keys=True) as made:
        yield made


def test_address_and_claim_are_all_that_a_device_needs_to_believe_and_be_believed(plant: Plant, tmp_path: Path) -> None:
    identity = ask(plant.url, plant.claim(), tmp_path, "first")
    assert (identity.broker.tls, identity.broker.host, identity.broker.password) == (True, "127.0.0.1", "")
    assert ca_file(tmp_path, None) == tmp_path / "ca.pem"
    assert (tmp_path / "ca.pem").read_text() == plant.world.services.security.authority.pem
    certificate = x509.load_pem_x509_certificate((tmp_path / "device.crt").read_bytes())
    assert certificate.subject.rfc4514_string() == "CN=first"
    context = broker_context(tmp_path, None)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert [ca["subject"] for ca in context.get_ca_certs()] == [((("commonName", "Lineside control plane"),),)]
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


def test_claim_is_shown_to_nobody_but_the_control_plane_that_it_is_for(plant: Plant, tmp_path: Path) -> None:
    with WebServer() as thief:
        claim = plant.claim()
        for answer in (b"no certificate", b"", _foreign_ca(tmp_path).encode()):
            thief.behaviour.answer = lambda _request, answer=answer: (200, answer)
            with pytest.raises(ConfigError, match="not the control plane that the claim is for"):
                ask(thief.url, claim, tmp_path / "box", "stolen")
        assert {request.path for request in thief.requests} == {"/v1/ca"}
        assert not any(claim.split(".")[0] in str(request) for request in thief.requests)


def test_other_control_plane_with_the_right_authority_in_hand_is_not_believed(plant: Plant, tmp_path: Path) -> None:
    real = plant.world.services.security
    with control_plane(tmp_path / "thief") as thief:
        thief.world.services.security.authorities = (
            real.authorities
        )  # everybody may have the CA; its servers have the key
        with pytest.raises(LinkError, match="certificate is not believed"):
            ask(thief.url, plant.claim(), tmp_path / "box", "stolen")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"days_ago": 100}, "look at this device's clock"),
        ({"days_ago": -3}, "look at this device's clock"),
        ({"host": "127.0.0.2"}, r"must know this name or address \(tls.names\)"),
    ],
)
def test_certificate_that_is_not_believed_says_what_to_look_at(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with control_plane(tmp_path / "cloud", **options) as other, pytest.raises(LinkError, match=words) as caught:
        ask(other.url, other.claim(), tmp_path / "box", "late")
    assert caught.value.retry


def test_claim_that_was_used_is_of_no_use_to_a_thief(plant: Plant, tmp_path: Path) -> None:
    claim = plant.claim()
    ask(plant.url, claim, tmp_path / "box", "owner")
    for name in ("owner", "thief"):
        with pytest.raises(ConfigError, match="used by a device with another key"):
            ask(plant.url, claim, tmp_path / "thief", name)


def test_new_claim_enrols_again_with_a_new_certificate_and_the_old_one_does_not_ask(
    plant: Plant, tmp_path: Path
) -> None:
    enrolment, store, claim = plant.world.services.enrolment, plant.world.services.store, plant.claim()
    first = ask(plant.url, claim, tmp_path, "again")
    assert ask(plant.url, claim, tmp_path, "again") == first
    assert ask(plant.url, "", tmp_path, "again") == first, "the claim may be taken out of the file"
    enrolment.revoke("again", who="anna")
    (tmp_path / "identity.json").rename(tmp_path / "kept")
    with pytest.raises(ConfigError, match="put out of the fleet"):
        ask(plant.url, claim, tmp_path, "again")
    (tmp_path / "kept").rename(tmp_path / "identity.json")
    certificate = (tmp_path / "device.crt").read_text()
    second = ask(plant.url, plant.claim(), tmp_path, "again")
    assert (second.public_key, second.token == first.token) == (first.public_key, False)
    assert (tmp_path / "device.crt").read_text() != certificate
    assert enrolment.device_of(first.token) is None
    assert "again" in {account.device for account in accounts(store)}


def test_bundle_comes_by_https_from_the_believed_control_plane_only(plant: Plant, tmp_path: Path) -> None:
    ref = BundleRef.model_validate(publish(plant.world, bundle_bytes("1.0.0")))
    ask(plant.url, plant.claim(), tmp_path / "identity", "fetcher")
    ca = ca_file(tmp_path / "identity", None)
    root = plant.world.config.keys_dir / "root.json"
    options: dict[str, Any] = {"base_url": plant.url, "root": root}
    asyncio.run(fetch_bundle(ref, tmp_path / "b.lsb", trust_dir=tmp_path / "trust", ca=ca, **options))
    assert (tmp_path / "b.lsb").read_bytes() == bundle_bytes("1.0.0")
    with pytest.raises(LinkError, match=r"certificate"):
        asyncio.run(fetch_bundle(ref, tmp_path / "c.lsb", trust_dir=tmp_path / "trust-2", **options))


@pytest.mark.parametrize("call", RULES)
def test_port_for_devices_gives_nothing_but_what_devices_call(plant: Plant, call: str) -> None:
    method, path = call.split(" ")
    with httpx.Client(verify=ssl.create_default_context(cadata=plant.world.services.security.trust_pem)) as client:
        answer = client.request(method, plant.url + path.replace("{", "").replace("}", ""))
    assert (answer.text.find("this port is for devices") > 0) == (call not in FOR_DEVICES)


def test_broker_is_told_at_the_address_by_which_the_device_came(tmp_path: Path) -> None:
    with control_plane(tmp_path / "cloud", host="127.0.0.2", tls=TlsConfig(names=("127.0.0.2",))) as other:
        assert ask(other.url, other.claim(), tmp_path / "box", "near").broker.host == "127.0.0.2"
    told = BrokerConfig(public_host="broker.example", public_port=8883)
    with control_plane(tmp_path / "told", broker=told) as other:
        broker = ask(other.url, other.claim(), tmp_path / "box-2", "far").broker
        assert (broker.host, broker.port) == ("broker.example", 8883)


def test_broker_in_plain_text_on_another_machine_is_refused_unless_it_is_said(tmp_path: Path) -> None:
    broker = BrokerAddress(host="192.0.2.7", port=1883, username="box", password="p")
    answer = EnrolAnswer(device="box", broker=broker, token="t", server_time_ms=1).model_dump_json().encode()
    with WebServer() as server:
        server.behaviour.answer = lambda _request: (200, answer)
        with pytest.raises(ConfigError, match="plain text") as caught:
            ask(server.url, "claim-0123456789abcdef", tmp_path, "box")
        assert "cloud.plain_text" in caught.value.hint
        assert not (tmp_path / "identity.json").exists()
        assert ask(server.url, "claim-0123456789abcdef", tmp_path, "box", plain_text=True).broker == broker
        with pytest.raises(ConfigError, match="plain text"):
            ask(server.url, "claim-0123456789abcdef", tmp_path, "box")


def _foreign_ca(folder: Path) -> str:
    with control_plane(folder / "foreign") as other:
        return other.world.services.security.authority.pem
