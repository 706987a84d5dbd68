"""The interface against its own document, by a tool that reads it and tries what it allows and what it does not."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cloud.folk import bearer, person, token
from tests.cloud.serving import serving
from tests.cloud.world import World

LONG = "LINESIDE_LONG" in os.environ
"""Every edge of every field of every call takes minutes; without it, some random bodies for each call."""
UNTRUE = "positive_data_acceptance"
"""Not asked: a schema cannot say what a signed list of bundles is, nor who must give a name with an answer."""


SETTINGS = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, "5xx"]
"""
"""Those that schemathesis expects by itself, and 413: a text beyond its limit may be a body beyond ours."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_call_answers_as_the_document_says_whatever_comes(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    world = World(tmp_path, with_keys=True)
    try:
        world.enrol()
        ada = bearer(token(world.services, person(world.services, "ada", "admin"), "admin"))
        with serving(world.services) as client:
            document = f"{str(client.base_url).rstrip('/')}/v1/openapi.json"
            command: list[str | Path] = [Path(sys.executable).with_name("schemathesis"), "run", document, "--no-color"]
            command += ["--phases", "coverage,fuzzing" if LONG else "fuzzing", "--max-examples", "50" if LONG else "2"]
            command += ["--exclude-checks", UNTRUE, "--seed", str(seed)]
            command += ["--header", f"Authorization: {ada['Authorization']}"]
            limit_s = 1700 if LONG else 170
            ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=limit_s, check=False)
    finally:
        world.close()
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr
