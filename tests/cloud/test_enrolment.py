"""Who gets into the fleet, who does not, and how one leaves it."""

import bcrypt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud import tables
from cloud.errors import InvalidError, NotFoundError, RefusedError
from edge.wire.base import BundleRef
from tests.bundles import bundle_bytes
from tests.cloud.publishing import publish
from tests.cloud.world import World, enrol_request

KEY = Ed25519PrivateKey.generate()
OTHER = Ed25519PrivateKey.generate()


def test_device_with_a_claim_gets_credentials_that_only_hashes_are_kept_of(world: World) -> None:
    claim = world.services.enrolment.create_claim(profile="inspection-box", site="hall-1").token
    answer = world.services.enrolment.enrol(enrol_request(KEY, claim))
    (row,) = world.rows(tables.devices)
    assert (row.device, row.profile, row.site, row.models) == ("box-1", "inspection-box", "hall-1", ["brightness"])
    assert bcrypt.checkpw(answer.broker.password.encode(), row.broker_password_hash.encode())
    assert world.services.enrolment.device_of(answer.token) == "box-1"
    everything = repr([world.rows(table) for table in tables.metadata.sorted_tables])
    for secret in (answer.token, answer.broker.password, claim):
        assert secret not in everything


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
