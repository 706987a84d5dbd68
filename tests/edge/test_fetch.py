"""Downloads over a real server and a line that is cut, thin, endless or lying; killed at any moment."""

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.errors import LinkError, StoreError, UpdateError
from edge.fetch import FetchLimits, download_bundle, fetch_bundle
from edge.trust import TargetInfo
from edge.wire.base import BundleRef
from tests.badlink import BadLink
from tests.tufrepo import TufRepo
from tests.waiting import wait_until
from tests.webserver import WebServer

DATA = random.Random(7).randbytes(600_000)
DIGEST = hashlib.sha256(DATA).hexdigest()
REF = BundleRef(name="phone_glass", version="1.0.0", digest=DIGEST, size_bytes=len(DATA))
PATH = f"/tuf/targets/{DIGEST}.phone_glass-1.0.0.lsb"
QUICK = FetchLimits(deadline_s=20, slow_s=0.3, attempts=3, pause_s=0.01, margin_bytes=0)


def signed(_name: str) -> TargetInfo:
    return TargetInfo(digest=DIGEST, size_bytes=len(DATA))


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer() as made:
        made.files[PATH] = DATA
        yield made


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "bundles" / f"{DIGEST}.lsb"


def fetch(server: WebServer, destination: Path, *, port: int | None = None, limits: FetchLimits = QUICK) -> Path:
    url = f"http://127.0.0.1:{port or server.port}/tuf/targets"
    download_bundle(REF, destination, targets_url=url, trust=signed, limits=limits)
    return destination


def parts(destination: Path) -> list[Path]:
    return list(destination.parent.glob(".*.part"))


def test_good_line_gives_the_bundle_and_leaves_no_part(server: WebServer, destination: Path) -> None:
    assert fetch(server, destination) == destination
    assert destination.read_bytes() == DATA
    assert not parts(destination)


def test_bundle_that_is_there_is_not_fetched_again(server: WebServer, destination: Path) -> None:
    fetch(server, destination)
    server.requests.clear()
    fetch(server, destination)
    assert not server.requests


def test_bundle_that_is_there_but_damaged_is_fetched_again(server: WebServer, destination: Path) -> None:
    fetch(server, destination)
    destination.write_bytes(DATA[:-1] + b"x")
    fetch(server, destination)
    assert destination.read_bytes() == DATA


def test_line_cut_every_100_kb_fetches_no_byte_twice(server: WebServer, destination: Path) -> None:
    server.behaviour.cut_after_bytes = 100_000
    fetch(server, destination)
    assert destination.read_bytes() == DATA
    assert server.body_bytes == len(DATA)


def test_resets_at_random_bytes_end_in_the_whole_bundle(server: WebServer, destination: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with BadLink(server.port) as bad:
        bad.bytes_per_s = 4e6
        limits = replace(QUICK, attempts=1)
        cuts = 0
        while not destination.exists():
            bad.cut_after_bytes = rng.randrange(200, 200_000)
            try:
                fetch(server, destination, port=bad.port, limits=limits)
            except LinkError:
                cuts += 1
            assert cuts < 200, "no progress over 200 cuts"
    assert destination.read_bytes() == DATA


def test_server_that_ignores_range_starts_over_and_ends_well(server: WebServer, destination: Path) -> None:
    server.behaviour.cut_after_bytes = 100_000
    with pytest.raises(LinkError):
        fetch(server, destination, limits=replace(QUICK, attempts=1, deadline_s=0))
    assert parts(destination)[0].stat().st_size > 0
    server.behaviour.cut_after_bytes = None
    server.behaviour.ignore_range = True
    fetch(server, destination)
    assert destination.read_bytes() == DATA


def test_server_that_answers_another_range_starts_over(server: WebServer, destination: Path) -> None:
    destination.parent.mkdir(parents=True)
    part = destination.with_name(f".{DIGEST}.part")
    part.write_bytes(DATA[:1000])
    server.behaviour.wrong_range = True
    fetch(server, destination)
    assert destination.read_bytes() == DATA


def test_part_longer_than_signed_starts_over(server: WebServer, destination: Path) -> None:
    destination.parent.mkdir(parents=True)
    destination.with_name(f".{DIGEST}.part").write_bytes(DATA + b"more")
    fetch(server, destination)
    assert destination.read_bytes() == DATA


@pytest.mark.parametrize("size", [1, 300_000, len(DATA)])
def test_part_with_wrong_bytes_of_an_earlier_attempt_is_fetched_anew(
    server: WebServer, destination: Path, size: int
) -> None:
    destination.parent.mkdir(parents=True)
    torn = bytes(512) + DATA[512:] if size > 512 else b"x"  # a sector that a power cut left empty
    destination.with_name(f".{DIGEST}.part").write_bytes(torn[:size])
    assert fetch(server, destination).read_bytes() == DATA
    assert server.body_bytes == len(DATA) - size + len(DATA)
    assert not parts(destination)


def test_part_with_wrong_bytes_at_a_server_with_wrong_bytes_is_refused_after_one_more_download(
    server: WebServer, destination: Path
) -> None:
    destination.parent.mkdir(parents=True)
    destination.with_name(f".{DIGEST}.part").write_bytes(b"x" * 1000)
    server.files[PATH] = DATA[:5000] + b"!" + DATA[5001:]
    with pytest.raises(UpdateError, match="expected SHA-256"):
        fetch(server, destination)
    assert len(server.requests) == 2
    assert not destination.exists() and not parts(destination)


def test_server_with_altered_bytes_is_refused_and_nothing_is_left(server: WebServer, destination: Path) -> None:
    server.files[PATH] = DATA[:5000] + b"!" + DATA[5001:]
    with pytest.raises(UpdateError, match="expected SHA-256") as caught:
        fetch(server, destination)
    assert "altered" in caught.value.hint
    assert not destination.exists()
    assert not parts(destination)


@pytest.mark.parametrize("size", [1, 5000, len(DATA) - 1, len(DATA) + 1])
def test_file_of_another_size_at_the_server_is_refused_at_once(server: WebServer, destination: Path, size: int) -> None:
    server.files[PATH] = (DATA + b"more")[:size]
    with pytest.raises(UpdateError, match=f"the server has {size}"):
        fetch(server, destination)
    assert len(server.requests) == 1
    assert not parts(destination)


def test_file_that_was_cut_at_the_server_while_it_came_is_refused_at_the_next_attempt(
    server: WebServer, destination: Path
) -> None:
    destination.parent.mkdir(parents=True)
    destination.with_name(f".{DIGEST}.part").write_bytes(DATA[:10_000])
    server.files[PATH] = DATA[:5000]
    with pytest.raises(UpdateError, match="the server has 5000"):
        fetch(server, destination)
    assert not parts(destination)


def test_endless_body_stops_at_the_signed_size(server: WebServer, destination: Path) -> None:
    server.behaviour.endless = True
    with pytest.raises(UpdateError, match="got more"):
        fetch(server, destination)
    assert server.body_bytes < 20 * len(DATA)
    assert not parts(destination)


def test_bundle_that_was_not_signed_is_refused_without_a_download(server: WebServer, destination: Path) -> None:
    other = REF.model_copy(update={"digest": "0" * 64})
    with pytest.raises(UpdateError, match="signed is"):
        download_bundle(other, destination, targets_url=f"{server.url}/tuf/targets", trust=signed)
    assert not server.requests


def test_dripping_line_is_given_up_and_keeps_its_part(server: WebServer, destination: Path) -> None:
    server.behaviour.drip_s = 0.02
    with pytest.raises(LinkError, match="slower than"):
        fetch(server, destination, limits=replace(QUICK, attempts=2))
    assert parts(destination)[0].stat().st_size > 0


def test_missing_bundle_is_a_matter_of_the_link(server: WebServer, destination: Path) -> None:
    server.files.clear()
    with pytest.raises(LinkError, match="404"):
        fetch(server, destination)


def test_busy_server_is_asked_again(server: WebServer, destination: Path) -> None:
    server.behaviour.status = [503, 500]
    assert fetch(server, destination).read_bytes() == DATA


def test_nobody_there_is_a_matter_of_the_link(server: WebServer, destination: Path) -> None:
    with pytest.raises(LinkError, match="refused"):
        fetch(server, destination, port=9)


def test_stop_ends_a_download_early(server: WebServer, destination: Path) -> None:
    server.behaviour.drip_s = 0.001
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(LinkError, match="stopped"):
        download_bundle(
            REF, destination, targets_url=f"{server.url}/tuf/targets", trust=signed, stop=stop,
            limits=replace(QUICK, slow_s=60),
        )  # fmt: skip
    assert time.monotonic() - began < 3


def test_no_room_is_said_before_anything_is_written(server: WebServer, destination: Path) -> None:
    with pytest.raises(StoreError, match="no room for") as caught:
        fetch(server, destination, limits=replace(QUICK, margin_bytes=2**60))
    assert caught.value.retry
    assert not server.requests


def test_full_disk_in_the_middle_is_a_store_error_and_goes_on_when_there_is_room(
    server: WebServer, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "x", str(disk)]).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"b" * 700_000)
        with pytest.raises(StoreError) as caught:
            download_bundle(
                REF, disk / "x.lsb", targets_url=f"{server.url}/tuf/targets", trust=signed,
                limits=replace(QUICK, margin_bytes=-(2**40)),
            )  # fmt: skip
        assert caught.value.retry
        ballast.unlink()
        assert fetch(server, disk / "x.lsb").read_bytes() == DATA
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


KILLED = """
import sys
from pathlib import Path
from edge.fetch import FetchLimits, download_bundle
from edge.trust import TargetInfo
from edge.wire.base import BundleRef
ref = BundleRef.model_validate_json(sys.argv[1])
info = TargetInfo(digest=ref.digest, size_bytes=ref.size_bytes)
print("begun", flush=True)
download_bundle(ref, Path(sys.argv[2]), targets_url=sys.argv[3], trust=lambda _: info)
"""


def test_killed_at_random_moments_ends_in_the_whole_bundle(server: WebServer, destination: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with BadLink(server.port) as bad:
        bad.bytes_per_s = 1_500_000
        kills = 0
        while not destination.exists():
            url = f"http://127.0.0.1:{bad.port}/tuf/targets"
            command = [sys.executable, "-c", KILLED, REF.model_dump_json(), str(destination), url]
            child = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert child.stdout is not None
            child.stdout.readline()
            try:
                child.wait(rng.uniform(0.02, 0.4))
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
                kills += 1
            child.wait()
            child.stdout.close()
            if destination.exists():
                assert destination.read_bytes() == DATA
            assert kills < 100
    assert kills > 0


def test_whole_way_with_a_signed_repository_takes_the_signed_and_refuses_the_other(
    server: WebServer, destination: Path, tmp_path: Path
) -> None:
    repo = TufRepo()
    repo.add(REF.target_path, DATA)
    root = tmp_path / "root.json"
    root.write_bytes(repo.sign("root"))
    server.files |= {f"/tuf/metadata/{name}": data for name, data in repo.publish().items()}

    async def get(ref: BundleRef, path: Path) -> Path:
        await fetch_bundle(ref, path, base_url=server.url, root=root, trust_dir=tmp_path / "trust")
        return path

    assert asyncio.run(get(REF, destination)).read_bytes() == DATA
    unknown = REF.model_copy(update={"version": "1.0.1"})
    with pytest.raises(UpdateError, match="not among the signed"):
        asyncio.run(get(unknown, destination.with_name("other")))


def test_part_is_there_while_it_comes_and_the_name_only_at_the_end(server: WebServer, destination: Path) -> None:
    with BadLink(server.port) as bad:
        bad.bytes_per_s = 2e6
        thread = threading.Thread(target=lambda: fetch(server, destination, port=bad.port))
        thread.start()
        wait_until(lambda: parts(destination) and parts(destination)[0].stat().st_size > 0, 10, "the first bytes")
        assert not destination.exists()
        thread.join(20)
    assert destination.read_bytes() == DATA
