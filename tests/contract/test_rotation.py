"""An authority takes another's place while devices are connected: real brokers, real TLS, the device's own code."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from cloud import server, tables
from cloud.authorities import describe
from cloud.authority import Authority
from cloud.enrolment import accounts
from edge import renewal
from edge.clock import SystemClock
from edge.errors import LinkError
from edge.identity import CERTIFICATE_FILE, Identity, broker_context
from edge.link import Link
from edge.mqttsession import LinkTimes
from tests.brokers import find_binary
from tests.contract.sites import WAIT_S, Site, ask, served, site
from tests.waiting import until

QUICK = renewal.RenewalTimes(look_s=0.4, refused_s=0.1, watch_s=0.02)


@pytest.fixture
def anyio_backend() -> str:
    """The control plane runs in asyncio."""
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["nats", "mosquitto"])
async def test_devices_go_on_while_the_authority_is_replaced_and_only_who_never_heard_of_it_enrols_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_binary(kind)
    monkeypatch.setattr(server, "AUTHORITY_CHECK_S", 0.05)
    async with site(kind, tmp_path) as here, _kept(here), _https(here) as url:
        known, old = here.world.services.security.authorities, here.world.services.security.authority
        there = await _enrolled(here, url, tmp_path / "there", "there")
        await _enrolled(here, url, tmp_path / "away", "away")
        async with _link(there, tmp_path / "there") as link, _renewing(link, there, tmp_path / "there") as news:
            await until(link.connected.is_set, WAIT_S, "the device at the broker")
            known.rotate(who="ada", why="a backup was stolen")
            if kind == "mosquitto":  # which reads authorities at its start only
                await until(lambda: (here.broker_files / "ca.pem").read_text() == known.pem, WAIT_S, "the files")
                assert known.waiting is not None
                assert known.signing is old
                await here.break_broker()
            await until(lambda: known.signing is not old, WAIT_S, "the next authority in use")
            await until(lambda: _signed_by(known.newest, tmp_path / "there"), WAIT_S, "the certificate renewed")
            await until(lambda: news and link.connected.is_set(), WAIT_S, "the device at the broker again")
            await _enrolled(here, url, tmp_path / "new", "new")
            assert _signed_by(known.newest, tmp_path / "new")
            assert describe(here.world.services.store, 0)["behind"] == {"devices": 2, "first": ["away", "new"]}
            await _until_let_in(there, tmp_path / "away", as_whom="probe")  # the old one is trusted until its end

            known.retire(who="ada", why="long enough")
            await until(lambda: here.world.services.security.authority is not old, WAIT_S, "the old one retired")
            if kind == "mosquitto":
                await until(lambda: (here.broker_files / "ca.pem").read_text() == known.pem, WAIT_S, "the files")
                await here.break_broker()
            await until(link.connected.is_set, WAIT_S, "the device at the broker with the new one alone")
            await _until_let_in(there, tmp_path / "there", as_whom="probe")
            await _until_let_in(there, tmp_path / "away", as_whom="probe", let_in=False)
        assert not (tmp_path / "data" / "tls" / "ca.key").exists(), "nothing can be signed by the old one any more"
        await _has_come_back(here, url, tmp_path)
        steps = [row.what for row in here.world.rows(tables.audit_log) if row.what.startswith("authority")]
        assert steps == ["authority_rotated", "authority_in_use", "authority_retired"]


async def _has_come_back(here: Site, url: str, folder: Path) -> None:
    """The device that knew the old authority alone believes nobody, until it is given a new claim."""
    identity = Identity.model_validate_json((folder / "away" / "who.json").read_text())
    with pytest.raises(LinkError, match="certificate is not believed"):
        await asyncio.to_thread(renewal.look, identity, folder / "away", None)
    again = await _enrolled(here, url, folder / "away", "away")
    await _until_let_in(again, folder / "away")
    assert await asyncio.to_thread(renewal.look, again, folder / "away", None) == []


@asynccontextmanager
async def _kept(here: Site) -> AsyncIterator[None]:
    task = asyncio.create_task(server.keep_authorities(here.parts))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def _https(here: Site) -> AsyncIterator[str]:
    with served(here.world) as url:
        yield url


@asynccontextmanager
async def _link(identity: Identity, folder: Path) -> AsyncIterator[Link]:
    tls = broker_context(folder, None)
    quick = LinkTimes(backoff_max_s=0.2)
    async with Link(identity.broker, identity.device, "boot", SystemClock(), times=quick, tls=tls) as link:
        yield link


@asynccontextmanager
async def _renewing(link: Link, identity: Identity, folder: Path) -> AsyncIterator[list[str]]:
    news: list[str] = []
    task = asyncio.create_task(renewal.run(link, identity, folder, ca=None, tell=news.append, times=QUICK))
    try:
        yield news
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _enrolled(here: Site, url: str, folder: Path, device: str) -> Identity:
    claim = here.world.services.enrolment.create_claim().token
    identity = await asyncio.to_thread(ask, url, claim, folder, device)
    (folder / "who.json").write_text(identity.model_dump_json())
    assert device in {account.device for account in accounts(here.world.services.store)}
    await _until_let_in(identity, folder)
    return identity


async def _until_let_in(identity: Identity, folder: Path, *, as_whom: str = "", let_in: bool = True) -> None:
    """Wait until the broker takes what is in a device's folder, or does no more."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while await _is_let_in(identity, folder, as_whom or identity.device) != let_in:
        assert asyncio.get_running_loop().time() < deadline, f"waited for the broker to know {folder.name}"


async def _is_let_in(identity: Identity, folder: Path, name: str) -> bool:
    tls = broker_context(folder, None)
    broker, client_id = identity.broker, name.encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x0a" + len(client_id).to_bytes(2, "big") + client_id
    try:
        reader, writer = await asyncio.open_connection(broker.host, broker.port, ssl=tls)
        try:
            writer.write(b"\x10" + bytes([len(body)]) + body)
            return await reader.readexactly(4) == b"\x20\x02\x00\x00"
        finally:
            writer.close()
    except (OSError, asyncio.IncompleteReadError):
        return False


def _signed_by(authority: Authority, folder: Path) -> bool:
    certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE_FILE).read_bytes())
    try:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.pem.encode()))
    except (ValueError, InvalidSignature):
        return False
    return True
