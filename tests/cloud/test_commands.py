"""The command line against a control plane that runs as a process."""

import json
import ssl
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path

import bcrypt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from cloud.__main__ import app
from cloud.config import load
from cloud.enrolment import accounts
from cloud.store import CloudStore
from tests.bundles import bundle_bytes
from tests.cloud.process import ServeProcess, run
from tests.cloud.world import World, enrol_request


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys that `keys init` made."""
    folder = tmp_path_factory.mktemp("keys") / "keys"
    server = folder.parent / "data" / "keys"
    made = run("keys", "init", str(folder), "--server-dir", str(server), "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["root"] == str(folder / "root.json")
    return folder


@pytest.fixture(scope="module")
def cloud(keys: Path) -> Iterator[ServeProcess]:
    """A control plane with these keys."""
    with ServeProcess(keys.parent / "data", "--broker-port", "0") as process:
        yield process


def test_keys_that_sign_are_not_given_to_the_server_and_only_their_owner_reads_them(keys: Path) -> None:
    assert sorted(path.name for path in keys.iterdir()) == ["release.pem", "root.json", "root.pem", "server"]
    server = keys.parent / "data" / "keys"
    assert {path.name for path in server.iterdir()} == {"root.json", "snapshot.pem", "targets.json", "timestamp.pem"}
    for path in (*keys.glob("*.pem"), *server.glob("*.pem")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_keys_are_never_overwritten(keys: Path) -> None:
    before = (keys / "root.pem").read_bytes()
    again = run("keys", "init", str(keys))
    assert (again.returncode, "holds keys already" in again.stderr) == (4, True)
    other = run("keys", "init", str(keys.parent / "more"), "--server-dir", str(keys.parent / "data" / "keys"))
    assert (other.returncode, "holds keys already" in other.stderr) == (4, True)
    assert (keys / "root.pem").read_bytes() == before


def test_bundle_is_published_listed_and_published_again_without_harm(
    cloud: ServeProcess, keys: Path, tmp_path: Path
) -> None:
    server = ("--server", cloud.addresses["url"])
    (tmp_path / "b.lsb").write_bytes(bundle_bytes("1.0.0"))
    publish = ("models", "publish", str(tmp_path / "b.lsb"), "--keys", str(keys), *server)
    first = run(*publish, "--json")
    assert first.returncode == 0, first.stderr
    published = json.loads(first.stdout)
    assert (published["name"], published["version"], published["state"]) == ("brightness", "1.0.0", "candidate")
    refused = run(*publish, "--default")
    assert (refused.returncode, "has no audit report" in refused.stderr) == (4, True)
    again = run(*publish, "--default", "--unaudited", "the first version of a test")
    assert "the default of its model" in again.stdout
    assert json.loads(run("models", "list", "brightness", "--json", *server).stdout)[0]["is_default"] is True
    assert "brightness" in run("models", "list", *server).stdout
    (tmp_path / "b.lsb").write_bytes(bundle_bytes("1.0.0", note="other"))
    other = run(*publish)
    assert other.returncode == 4
    assert "published already" in other.stderr
    (tmp_path / "b.lsb").write_bytes(bundle_bytes("1.1.0")[:-10])
    assert "not a bundle" in run(*publish).stderr


def test_bundle_signed_with_foreign_keys_is_refused_with_the_reason(
    cloud: ServeProcess, keys: Path, tmp_path: Path
) -> None:
    run("keys", "init", str(tmp_path / "foreign"))
    (tmp_path / "b.lsb").write_bytes(bundle_bytes("3.0.0"))
    server = ("--server", cloud.addresses["url"])
    refused = run("models", "publish", str(tmp_path / "b.lsb"), "--keys", str(tmp_path / "foreign"), *server)
    assert refused.returncode == 4
    assert "not signed with the release key" in refused.stderr
    missing = run("models", "publish", str(tmp_path / "b.lsb"), "--keys", str(tmp_path / "none"), *server)
    assert (missing.returncode, "keys init" in missing.stderr) == (2, True)


def test_device_that_shows_a_claim_is_listed_until_it_is_revoked(cloud: ServeProcess) -> None:
    server = ("--server", cloud.addresses["url"])
    assert "No device has enrolled yet" in run("devices", *server).stdout
    claim = run("devices", "claim", "--profile", "inspection-box", "--site", "hall-1", *server)
    token = claim.stdout.strip()
    assert "It is not shown again" in claim.stderr
    with cloud.client() as client:
        client.post("/v1/enrol", enrol_request(Ed25519PrivateKey.generate(), token).model_dump())
    (listed,) = json.loads(run("devices", "--json", *server).stdout)
    assert (listed["device"], listed["freshness"]) == ("box-1", "unknown")
    assert "unknown" in run("devices", *server).stdout
    assert run("devices", "revoke", "box-1", "--why", "scrapped", *server).returncode == 0
    assert run("devices", "revoke", "box-1", *server).returncode == 4
    assert json.loads(run("devices", "--json", *server).stdout) == []


def test_control_plane_that_is_not_there_gives_exit_code_5_and_says_what_to_do() -> None:
    away = run("devices", "--server", "http://127.0.0.1:9")
    assert away.returncode == 5
    assert "lineside-cloud serve" in away.stderr


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("serve",),
        ("devices",),
        ("devices", "claim"),
        ("devices", "revoke"),
        ("models",),
        ("models", "publish"),
        ("models", "list"),
        ("keys", "init"),
        ("broker-config", "mosquitto"),
        ("broker-config", "emqx"),
    ],
)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"], prog_name="lineside-cloud")
    assert shown.exit_code == 0
    assert "Usage: lineside-cloud" in shown.stdout
    if len(command) > 1 or command == ("serve",):
        assert "Example: lineside-cloud" in shown.stdout


def _fleet(folder: Path, more: str = "") -> Path:
    """A control plane's folder with one device in the fleet and one that was put out; return its settings."""
    (folder / "password").write_text("the control plane's own")
    broker = f'[broker]\nkind = "external"\nport = 8883\npassword_file = "password"\n{more}'
    (folder / "c.toml").write_text(f'[store]\ndata_dir = "data"\n{broker}')
    world = World(folder, broker=load(folder / "c.toml").broker)
    world.enrol("box-1")
    world.enrol("box-2")
    world.services.enrolment.revoke("box-2", who="anna")
    world.close()
    return folder / "c.toml"


def _written(folder: Path, kind: str, settings: Path) -> dict[str, str]:
    done = run("broker-config", kind, "--out", str(folder / "out"), "--config", str(settings))
    assert (done.returncode, "1 devices written" in done.stderr) == (0, True), done.stderr
    assert {path.stat().st_mode & 0o077 for path in (folder / "out").iterdir()} == {0}
    return {path.name: path.read_text() for path in (folder / "out").iterdir()}


def test_files_for_mosquitto_hold_the_fleet_and_nobody_else_reads_them(tmp_path: Path) -> None:
    files = _written(tmp_path, "mosquitto", _fleet(tmp_path))
    assert sorted(files) == ["acl_file", "ca.pem", "crl.pem", "mosquitto.conf", "server.pem"]
    assert "user box-1" in files["acl_file"]
    assert "box-2" not in files["acl_file"]
    assert len(list(x509.load_pem_x509_crl(files["crl.pem"].encode()))) == 1
    again = _written(tmp_path, "mosquitto", tmp_path / "c.toml")
    assert again["server.pem"] == files["server.pem"], "the broker's certificate changes only when it must"


def test_files_for_mosquitto_with_passwords_hold_hashes_of_those_in_the_fleet(tmp_path: Path) -> None:
    files = _written(tmp_path, "mosquitto", _fleet(tmp_path, 'credential = "password"\ntls = false\n'))
    assert sorted(files) == ["acl_file", "mosquitto.conf", "password_file"]
    names = [line.split(":")[0] for line in files["password_file"].splitlines()]
    assert names == ["lineside-cloud", "box-1"]
    assert "the control plane's own" not in files["password_file"]


def test_files_for_emqx_name_each_device_by_the_certificate_that_it_has_now(tmp_path: Path) -> None:
    files = _written(tmp_path, "emqx", _fleet(tmp_path))
    assert sorted(files) == ["acl.conf", "ca.pem", "lineside.hocon", "server.pem"]
    store = CloudStore.open(load(tmp_path / "c.toml").database_url)
    (account,) = accounts(store)
    store.close()
    der = ssl.PEM_cert_to_DER_cert(account.certificate)
    user = f'{{username, "{md5(der).hexdigest()}"}}'
    rules = [line for line in files["acl.conf"].splitlines() if not line.startswith("%%")]
    own = "lineside/1/box-1/"
    assert rules[1:] == [
        f'{{allow, {user}, publish, [{{eq, "{own}reported"}}, {{eq, "{own}presence"}}, {{eq, "{own}up"}}]}}.',
        f'{{allow, {user}, subscribe, [{{eq, "{own}desired"}}, {{eq, "{own}ack"}}]}}.',
        "{deny, all}.",
    ]
    assert rules[0].endswith('all, ["lineside/1/#"]}.')
    for line in (
        "verify = verify_peer",
        "fail_if_no_peer_cert = true",
        "no_match = deny",
        "listeners.tcp.default.enable",
    ):
        assert line in files["lineside.hocon"]


def test_files_for_emqx_with_passwords_hold_bcrypt_as_emqx_takes_it(tmp_path: Path) -> None:
    files = _written(tmp_path, "emqx", _fleet(tmp_path, 'credential = "password"\n'))
    head, own, box = files["users.csv"].splitlines()
    assert head == "user_id,password_hash,salt,is_superuser"
    name, hashed, salt, superuser = own.split(",")
    assert (name, superuser, box.split(",")[0]) == ("lineside-cloud", "false", "box-1")
    # EMQX hashes what came with the salt, and compares.
    assert bcrypt.hashpw(b"the control plane's own", salt.encode()) == hashed.encode()
    assert "built_in_database" in files["lineside.hocon"]
    assert 'username, "box-1"' in files["acl.conf"]


def test_wrong_settings_give_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[server]\nprot = 1\n")
    wrong = run("serve", "--config", str(tmp_path / "c.toml"))
    assert (wrong.returncode, "server.prot" in wrong.stderr) == (2, True)
    assert run("broker-config", "mosquitto", "--out", str(tmp_path), "--config", str(tmp_path)).returncode == 2
