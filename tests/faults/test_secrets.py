"""What is written down while devices enrol and people sign in: never a secret, whatever goes wrong."""

import json
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.cloud.folk import PASSWORD
from tests.cloud.process import COMMAND, run
from tests.faults.plant import START_S, Cloud, Device, read_rows

SHORTEST = 12
"""Shorter pieces than this may be in a log by chance."""


@pytest.mark.timeout(420)
def test_logs_of_an_enrolment_and_a_login_hold_no_secret(tmp_path: Path) -> None:
    with Cloud(tmp_path / "cloud") as cloud:
        claim, spare = cloud.claim("box-1"), cloud.claim("box-2")
        device = Device(tmp_path / "box-1", cloud_url=cloud.url, claim=claim, root=cloud.root)
        with device:
            device.wait_for(lambda: _has_reported(cloud), 3 * START_S, "the device's report")
            device.stop()
        refused = [
            _refused(tmp_path / "other", "box-3", cloud, spare),
            _refused(tmp_path / "short", "box-2", cloud, "tooshort-claim"),
            _refused(tmp_path / "profile", "box-2", cloud, spare, profile="x" * 80),
        ]
        secrets = {claim, claim.split(".")[0], spare, spare.split(".")[0], "tooshort-claim"}
        secrets |= _signed_in(cloud, tmp_path / "token")
        assert cloud.stop() == 0
        secrets |= _kept_by(device.data_dir / "identity") | _pem_bodies(cloud.data_dir / "tls")
        logs = {path: path.read_text(errors="replace") for path in _logs(tmp_path)}
    logs[tmp_path / "refused"] = "\n".join(refused)
    logs[tmp_path / "audit"] = repr(cloud.rows("SELECT * FROM audit_log"))
    logs[tmp_path / "events"] = repr(read_rows(device.record, "SELECT body FROM rows WHERE kind = 'event'"))
    assert {"cloud", "box-1", "broker"} <= {path.parent.name for path in logs}
    assert min(map(len, secrets)) >= SHORTEST, "a secret that is found by chance proves nothing"
    found = {(path.name, secret[:4]) for path, text in logs.items() for secret in secrets if secret in text}
    assert found == set()


def _has_reported(cloud: Cloud) -> bool:
    with cloud.client() as client:
        return any(view["reported"] for view in client.devices())


def _signed_in(cloud: Cloud, file: Path) -> set[str]:
    """Make an account and sign in, by form and by command, also wrongly; return what must stay secret."""
    url = str(cloud.addresses["url"])
    added = run("people", "add", "ada", "--role", "admin", "--url", url, "--data-dir", str(cloud.data_dir))
    invite = parse_qs(urlsplit(added.stdout.strip()).query)["invite"][0]
    with httpx.Client(base_url=url, trust_env=False, headers={"Origin": url}) as browser:
        form = {"invite": invite, "password": PASSWORD, "again": PASSWORD}
        assert browser.post("/join", data=form).status_code == 303
        browser.cookies.clear()
        assert browser.post("/login", data={"name": "ada", "password": "a wrong password"}).status_code != 303
        assert browser.post("/login", data={"name": "ada", "password": PASSWORD}).status_code == 303
        cookie = next(iter(browser.cookies.values()))
    login = run("login", "ada", "--token-file", str(file), "--server", url, words=f"{PASSWORD}\n")
    assert login.returncode == 0, login.stderr
    assert run("devices", "--server", url, "--token-file", str(file)).returncode == 0
    return {PASSWORD, "a wrong password", invite, cookie, file.read_text().strip()}


def _refused(folder: Path, name: str, cloud: Cloud, claim: str, profile: str = "generic") -> str:
    """Have an enrolment fail; return all that a person is told."""
    folder.mkdir()
    program = (
        "import sys; from pathlib import Path; from edge.enrol import enrol; from edge.clock import SystemClock\n"
        "from edge.errors import LinesideError\n"
        "try: enrol(sys.argv[1], sys.argv[2], sys.argv[3], profile=sys.argv[4], site='s', models=[],"
        " identity_dir=Path(sys.argv[5]), clock=SystemClock(), ca=Path(sys.argv[6]))\n"
        "except LinesideError as error: print(error.for_people()); sys.exit(7)\n"
    )
    ca = str(cloud.data_dir / "tls" / "ca.pem")
    command = [COMMAND[0], "-c", program, cloud.url, name, claim, profile, str(folder / "identity"), ca]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 7, done.stderr
    return done.stdout + done.stderr


def _kept_by(identity: Path) -> set[str]:
    kept = json.loads((identity / "identity.json").read_text())["value"]
    return {kept["token"], (identity / "device.key").read_text().strip()} | _pem_bodies(identity)


def _pem_bodies(folder: Path) -> set[str]:
    """Return the lines of private keys."""
    found: set[str] = set()
    for path in folder.iterdir():
        key, end, _ = path.read_text().partition("-----END PRIVATE KEY")
        found |= {line for line in key.splitlines() if end and "-----" not in line and len(line) >= SHORTEST}
    return found


def _logs(folder: Path) -> list[Path]:
    found = [path for pattern in ("*.log", "*.stderr") for path in folder.rglob(pattern)]
    return [path for path in found if path.is_file()]
