"""Who gets into the fleet, who does not, and how one leaves it."""

from pathlib import Path

import bcrypt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud import tables
from cloud.config import BrokerConfig
from cloud.enrolment import accounts, revoked_serials
from cloud.errors import InvalidError, NotFoundError, RefusedError
from edge.tls import is_the_ca
from edge.wire.base import BundleRef
from tests.bundles import bundle_bytes
from tests.cloud.publishing import publish
from tests.cloud.world import TLS_KEY, World, certificate_request, enrol_request

KEY = Ed25519PrivateKey.generate()
OTHER = Ed25519PrivateKey.generate()


def test_device_with_a_claim_gets_credentials_that_only_hashes_are_kept_of(world: World) -> None:
    claim = world.services.enrolment.create_claim(profile="inspection-box", site="hall-1").token
    answer = world.services.enrolment.enrol(enrol_request(KEY, claim))
    (row,) = world.rows(tables.devices)
    assert (row.device, row.profile, row.site, row.models) == ("box-1", "inspection-box", "hall-1", ["brightness"])
    assert (answer.broker.username, answer.broker.password, row.broker_password_hash) == ("", "", "")
    assert world.services.enrolment.device_of(answer.token) == "box-1"
    everything = repr([world.rows(table) for table in tables.metadata.sorted_tables])
    for secret in (answer.token, claim, claim.split(".")[0]):
        assert secret not in everything


def test_device_where_passwords_are_set_gets_one_that_only_hashes_are_kept_of(tmp_path: Path) -> None:
    world = World(tmp_path, broker=BrokerConfig(credential="password"))
    answer = world.enrol()
    (row,) = world.rows(tables.devices)
    assert bcrypt.checkpw(answer.broker.password.encode(), row.broker_password_hash.encode())
    assert (answer.certificate, answer.broker.username, answer.broker.tls) == (None, "box-1", True)
    assert answer.broker.password not in repr([world.rows(table) for table in tables.metadata.sorted_tables])
    world.close()


def test_device_gets_a_certificate_for_its_own_key_and_its_own_name_alone(world: World) -> None:
    answer = world.enrol("box-1")
    assert answer.certificate is not None
    assert answer.ca == world.services.security.authority.pem
    certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(answer.ca.encode()))
    assert certificate.public_key() == TLS_KEY.public_key()
    assert certificate.subject.rfc4514_string() == "CN=box-1"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]  # it is no server's


@pytest.mark.parametrize(
    ("csr", "reason"),
    [
        (certificate_request("box-2"), "for itself alone"),
        (certificate_request("lineside-cloud"), "for itself alone"),
        (certificate_request("box-1", rsa.generate_private_key(65537, 2048)), "P-256 or Ed25519"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "got none"),
    ],
)
def test_request_for_another_name_or_with_another_kind_of_key_gets_no_certificate(
    world: World, csr: str, reason: str
) -> None:
    claim = world.services.enrolment.create_claim().token
    with pytest.raises(InvalidError, match=reason):
        world.services.enrolment.enrol(enrol_request(KEY, claim, csr=csr))
    assert world.rows(tables.claims)[0].used_by_key is None


def test_certificate_request_that_was_exchanged_on_the_way_is_refused(world: World) -> None:
    claim = world.services.enrolment.create_claim().token
    thief = certificate_request("box-1", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(RefusedError, match="proof"):
        world.services.enrolment.enrol(enrol_request(KEY, claim).model_copy(update={"csr": thief}))


def test_device_without_a_certificate_request_is_told_to_update(world: World) -> None:
    claim = world.services.enrolment.create_claim().token
    with pytest.raises(RefusedError, match="by certificate") as caught:
        world.services.enrolment.enrol(enrol_request(KEY, claim, csr=None))
    assert "broker.credential" in caught.value.hint


@pytest.mark.parametrize("device", ["lineside-cloud", "plant-cloud"])
def test_device_that_takes_the_control_planes_own_name_is_refused(tmp_path: Path, device: str) -> None:
    world = World(tmp_path, broker=BrokerConfig(username="plant-cloud"))
    with pytest.raises(InvalidError, match="the control plane"):
        world.services.enrolment.create_claim(device=device)
    with pytest.raises(InvalidError, match="the control plane"):
        world.enrol(device)
    world.close()


def test_claim_carries_the_digest_of_the_authority(world: World) -> None:
    token, _, digest = world.services.enrolment.create_claim().token.partition(".")
    assert len(token) == 43
    assert is_the_ca(world.services.security.authority.pem, digest)


def test_revoked_device_is_not_taken_in_again_by_the_claim_that_it_came_with(world: World) -> None:
    enrolment = world.services.enrolment
    claim = enrolment.create_claim().token
    enrolment.enrol(enrol_request(KEY, claim))
    enrolment.revoke("box-1", who="anna")
    with pytest.raises(RefusedError, match="put out of the fleet"):
        enrolment.enrol(enrol_request(KEY, claim))
    assert accounts(world.services.store) == []
    enrolment.enrol(enrol_request(KEY, enrolment.create_claim().token))  # a new one is somebody's decision
    assert [account.device for account in accounts(world.services.store)] == ["box-1"]


def test_enrolling_again_puts_the_certificate_before_out_of_use(world: World) -> None:
    enrolment = world.services.enrolment
    claim = enrolment.create_claim().token
    enrolment.enrol(enrol_request(KEY, claim))
    (first,) = accounts(world.services.store)
    enrolment.enrol(enrol_request(KEY, claim))
    (second,) = accounts(world.services.store)
    assert first.serial != second.serial
    assert revoked_serials(world.services.store) == [first.serial]
    enrolment.revoke("box-1", who="anna")
    assert set(revoked_serials(world.services.store)) == {first.serial, second.serial}


def test_same_key_may_ask_again_with_the_same_claim_and_gets_fresh_credentials(world: World) -> None:
    claim = world.services.enrolment.create_claim(ttl_s=60).token
    first = world.services.enrolment.enrol(enrol_request(KEY, claim))
    world.clock.forward(3600)  # the claim has run out meanwhile: it was used in time
    second = world.services.enrolment.enrol(enrol_request(KEY, claim))
    assert world.services.enrolment.device_of(first.token) is None
    assert world.services.enrolment.device_of(second.token) == "box-1"
    assert world.count(tables.devices) == 1


def test_claim_that_another_key_has_used_is_refused(world: World) -> None:
    claim = world.services.enrolment.create_claim().token
    world.services.enrolment.enrol(enrol_request(KEY, claim))
    with pytest.raises(RefusedError, match="another key"):
        world.services.enrolment.enrol(enrol_request(OTHER, claim, "box-2"))


def test_name_that_is_taken_stays_with_its_key_until_it_is_revoked(world: World) -> None:
    enrolment = world.services.enrolment
    first = enrolment.enrol(enrol_request(KEY, enrolment.create_claim().token))
    stolen = enrolment.create_claim().token
    with pytest.raises(RefusedError, match="is in the fleet with another key"):
        enrolment.enrol(enrol_request(OTHER, stolen))
    enrolment.revoke("box-1", who="anna", why="scrapped")
    assert enrolment.device_of(first.token) is None
    assert enrolment.enrol(enrol_request(OTHER, stolen)).device == "box-1"  # a refused call has not used the claim up


@pytest.mark.parametrize(
    ("claimed", "fields", "reason"),
    [
        ({"profile": "phone"}, {}, "for profile 'phone'"),
        ({"site": "hall-9"}, {}, "for site 'hall-9'"),
        ({"device": "box-9"}, {}, "for device 'box-9'"),
        ({}, {"proof": "00" * 64}, "proof"),
        ({}, {"public_key": "00" * 32}, "proof"),
    ],
)
def test_device_that_is_not_the_one_meant_is_refused_with_the_reason(
    world: World, claimed: dict[str, str], fields: dict[str, str], reason: str
) -> None:
    claim = world.services.enrolment.create_claim(**claimed).token  # type: ignore[arg-type]
    request = enrol_request(KEY, claim).model_copy(update=fields)
    with pytest.raises(RefusedError, match=reason):
        world.services.enrolment.enrol(request)
    assert world.count(tables.devices) == 0
    assert world.rows(tables.claims)[0].used_by_key is None


def test_claim_that_is_unknown_or_has_run_out_is_refused(world: World) -> None:
    with pytest.raises(RefusedError, match="unknown"):
        world.services.enrolment.enrol(enrol_request(KEY, "x" * 43))
    claim = world.services.enrolment.create_claim(ttl_s=60).token
    world.clock.forward(61)
    with pytest.raises(RefusedError, match="expired"):
        world.services.enrolment.enrol(enrol_request(KEY, claim))


@pytest.mark.parametrize("fields", [{"device": "Box 1"}, {"ttl_s": 0}, {"ttl_s": 1e10}])
def test_claim_that_makes_no_sense_is_refused(world: World, fields: dict[str, float]) -> None:
    with pytest.raises(InvalidError):
        world.services.enrolment.create_claim(**fields)  # type: ignore[arg-type]


def test_revoking_a_device_that_is_not_there_is_refused(world: World) -> None:
    with pytest.raises(NotFoundError):
        world.services.enrolment.revoke("box-1", who="anna")


def test_new_device_starts_with_the_default_of_each_of_its_models(registry_world: World) -> None:
    ref = publish(registry_world, bundle_bytes("1.0.0"), default=True)
    publish(registry_world, bundle_bytes("1.1.0"))  # a candidate: nobody gets it without a rollout
    registry_world.enrol("box-1")
    desired = registry_world.services.fleet.desired("box-1")
    assert desired.bundles["brightness"].active == BundleRef(**ref)
    registry_world.enrol("box-2", models=["other"])
    assert registry_world.services.fleet.desired("box-2").bundles == {}


def test_enrolling_again_leaves_the_desired_state_alone(registry_world: World) -> None:
    publish(registry_world, bundle_bytes("1.0.0"), default=True)
    claim = registry_world.services.enrolment.create_claim().token
    registry_world.services.enrolment.enrol(enrol_request(KEY, claim))
    before = registry_world.services.fleet.desired("box-1")
    publish(registry_world, bundle_bytes("1.1.0"), default=True)
    registry_world.services.enrolment.enrol(enrol_request(KEY, claim))
    assert registry_world.services.fleet.desired("box-1") == before


def test_every_change_is_in_the_audit_log_with_who_and_why(world: World) -> None:
    world.enrol("box-1")
    world.services.enrolment.revoke("box-1", who="anna", why="scrapped")
    log = [(row.who, row.what, row.why) for row in world.rows(tables.audit_log)]
    assert log == [
        ("operator", "claim_created", ""),
        ("device box-1", "device_enrolled", ""),
        ("anna", "device_revoked", "scrapped"),
    ]
