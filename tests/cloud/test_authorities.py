"""One authority takes another's place in time, at all copies, and nothing is left of the old one."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud import tables
from cloud.authorities import REPLACE_BEFORE_MS, describe
from cloud.config import BrokerConfig, TlsConfig
from cloud.enrolment import accounts, revoked_serials
from cloud.errors import ConfigError, ConflictError, InvalidError, RefusedError
from edge.wire.http import EnrolAnswer, RenewRequest, renew_statement
from tests.clocks import HeldClock
from tests.cloud.databases import empty_postgresql
from tests.cloud.world import World, certificate_request, enrol_request, secret_file

DAY_S = 86_400
KEY = Ed25519PrivateKey.generate()


def _enrol(world: World, device: str) -> EnrolAnswer:
    claim = world.services.enrolment.create_claim().token
    return world.services.enrolment.enrol(enrol_request(KEY, claim, device))


def _renew_request(device: str, key: Ed25519PrivateKey = KEY) -> RenewRequest:
    csr = certificate_request(device)
    return RenewRequest(csr=csr, proof=key.sign(renew_statement(device, csr)).hex())


def _in_use(world: World) -> None:
    """Say that the broker takes the next authority's certificates."""
    known = world.services.security.authorities
    assert known.waiting is not None
    known.take_into_use(known.waiting.fingerprint)


def test_old_authority_is_retired_by_itself_when_the_overlap_is_over(world: World) -> None:
    known, old = world.services.security.authorities, world.services.security.authority
    for device in ("there", "away"):
        _enrol(world, device)
    assert world.services.enrolment.trust_of("there").renew is False
    new = known.rotate(who="ada", why="a backup was stolen", overlap_s=7 * DAY_S)
    world.clock.forward(3 * DAY_S)  # the overlap begins when the broker takes the next one
    _in_use(world)
    told = world.services.enrolment.trust_of("there")
    assert (told.renew, told.ca, told.broker_ca) == (True, old.pem + new.pem, old.pem + new.pem)
    renewed = world.services.enrolment.renew("there", _renew_request("there")).certificate
    assert [account.certificate for account in accounts(world.services.store)][1] == renewed
    assert world.services.enrolment.trust_of("there").renew is False
    world.clock.forward(7 * DAY_S - 1)
    known.keep_up()
    assert (known.shown.pem, known.signing.pem) == (old.pem, new.pem)
    world.clock.forward(1)
    known.keep_up()
    assert known.pem == known.ca_file.read_text() == new.pem
    assert [account.serial != "" for account in accounts(world.services.store)] == [False, True]
    assert len(revoked_serials(world.services.store)) == 2, "the renewed one's first, and the other's"
    (last,) = [row for row in world.rows(tables.audit_log) if row.what == "authority_retired"]
    assert (last.who, last.data["devices_left_behind"]) == ("lineside-cloud", 1)
    assert [path.name for path in known.ca_file.parent.glob("ca*.key")] == [f"ca-{new.fingerprint[:16]}.key"]


def test_one_authority_is_replaced_at_a_time_and_none_before_its_heir_is_in_use(world: World) -> None:
    known = world.services.security.authorities
    with pytest.raises(ConflictError, match="one authority only"):
        known.retire(who="ada", why="x")
    known.rotate(who="ada", why="x", overlap_s=DAY_S)
    with pytest.raises(ConflictError, match="still being replaced"):
        known.rotate(who="ada", why="again")
    with pytest.raises(ConflictError, match="does not take certificates of the next") as caught:
        known.retire(who="ada", why="x")
    assert "Mosquitto" in caught.value.hint
    world.clock.forward(30 * DAY_S)
    known.keep_up()
    assert len(known.trusted) == 2, "the broker does not take the next one yet, so the old one must stay"


def test_authority_that_ends_by_time_is_replaced_long_before(world: World) -> None:
    known = world.services.security.authorities
    world.clock.forward((known.newest.ends_at_ms - world.clock.now_ms() - REPLACE_BEFORE_MS) / 1000)
    known.keep_up()
    assert known.waiting is None
    world.clock.forward(1)
    known.keep_up()
    known.keep_up()
    first, second = known.trusted
    assert first.retire_at_ms is not None
    assert first.retire_at_ms < first.authority.ends_at_ms < second.authority.ends_at_ms


def test_where_devices_sign_in_by_password_the_next_authority_is_in_use_at_once(tmp_path: Path) -> None:
    world = World(tmp_path, broker=BrokerConfig(credential="password"))
    known = world.services.security.authorities
    new = known.rotate(who="ada", why="x", at_once=True)
    assert known.signing.pem == new.pem
    _enrol(world, "box-1")
    assert world.services.enrolment.trust_of("box-1").certificate is None
    with pytest.raises(RefusedError, match="do not sign in by certificate"):
        world.services.enrolment.renew("box-1", _renew_request("box-1"))
    world.close()


def test_nobody_renews_a_certificate_but_the_device_itself(world: World) -> None:
    _enrol(world, "box-1")
    _enrol(world, "box-2")
    for request in (_renew_request("box-1", Ed25519PrivateKey.generate()), _renew_request("box-2")):
        with pytest.raises((RefusedError, InvalidError), match=r"proof|itself alone"):
            world.services.enrolment.renew("box-1", request)
    world.services.enrolment.revoke("box-1", who="ada")
    with pytest.raises(RefusedError, match="proof"):
        world.services.enrolment.renew("box-1", _renew_request("box-1"))


def test_status_names_the_devices_that_do_not_know_the_newest_authority(world: World) -> None:
    for device in ("there", "told", "away"):
        _enrol(world, device)
    world.services.enrolment.create_claim()
    assert describe(world.services.store, world.clock.now_ms())["behind"]["devices"] == 0
    world.services.security.authorities.rotate(who="ada", why="x")
    _in_use(world)
    for device in ("there", "told"):
        world.services.enrolment.trust_of(device)
    world.services.enrolment.renew("there", _renew_request("there"))
    found = describe(world.services.store, world.clock.now_ms())
    assert [(one["state"], one["devices"]) for one in found["authorities"]] == [("ending", 2), ("in use", 1)]
    assert found["behind"] == {"devices": 2, "first": ["away", "told"]}
    assert found["unused_claims"] == 1


def test_copies_share_one_authority_and_follow_each_other(tmp_path: Path) -> None:
    url = empty_postgresql()
    first, second = World(tmp_path / "a", database=url), World(tmp_path / "b", database=url)
    one, other = first.services.security, second.services.security
    assert one.authority.pem == other.authority.pem
    (kept,) = first.rows(tables.authorities)
    assert "ENCRYPTED PRIVATE KEY" in kept.key
    assert not list((tmp_path / "a" / "data" / "tls").glob("*.key"))
    one.authorities.rotate(who="ada", why="x")
    other.authorities.keep_up()
    assert other.authorities.waiting is not None
    other.authorities.take_into_use(other.authorities.waiting.fingerprint)
    one.authorities.keep_up()
    certificates = [_enrol(world, name).certificate for world, name in ((first, "box-1"), (second, "box-2"))]
    assert all(certificates)
    newest = one.authorities.newest.fingerprint
    assert {row.authority for row in first.rows(tables.certificates)} == {newest}
    one.authorities.retire(who="ada", why="x")
    other.authorities.keep_up()
    assert other.authority.fingerprint == newest
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("here", "there", "hint"),
    [(None, None, "authority_secret_file"), ("one", None, "the other copies have"), ("one", "two", "the same at all")],
)
def test_copy_that_has_no_key_of_the_common_authority_is_refused_and_told_what_to_do(
    tmp_path: Path, here: str | None, there: str | None, hint: str
) -> None:
    url = empty_postgresql()

    def tls(folder: Path, secret: str | None) -> TlsConfig:
        path = secret_file(folder)
        path.write_text(f"a secret of this copy: {secret}")
        return TlsConfig(authority_secret_file=path if secret else None)

    first = World(tmp_path / "a", database=url, tls=tls(tmp_path / "a", here))
    with pytest.raises(ConfigError, match="authority") as caught:
        World(tmp_path / "b", database=url, tls=tls(tmp_path / "b", there))
    assert hint in caught.value.hint
    first.close()


def test_key_that_was_a_file_moves_into_the_database_once_there_is_a_secret(tmp_path: Path) -> None:
    clock = HeldClock()
    before = World(tmp_path, clock=clock)
    pem = before.services.security.authority.pem
    before.close()
    assert (tmp_path / "data" / "tls" / "ca.key").exists()
    after = World(tmp_path, clock=clock, tls=TlsConfig(authority_secret_file=secret_file(tmp_path)))
    assert after.services.security.authority.pem == pem
    assert not (tmp_path / "data" / "tls" / "ca.key").exists()
    after.close()
    again = World(tmp_path, clock=clock, tls=TlsConfig(authority_secret_file=secret_file(tmp_path)))
    assert again.services.security.authority.pem == pem
    again.close()
